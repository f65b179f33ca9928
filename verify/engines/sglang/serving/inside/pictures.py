"""A picture in each prompt, for models that add what a picture says between their first layers.

Of the vision tower only what it would say is given, as the engine takes it in a request
(`precomputed_embeddings`): one embedding for the input and one for each of those layers. The
engine itself spreads them over the tokens and adds them. Runs inside the engine's Python.
"""

import importlib
from typing import Any

from verify.engines.sglang.serving.inside import weights

# tokens of the picture: part of the prefill, the rest of the extension
FIRST, LAST = 2, 4


def shown(model: Any) -> bool:
    """Whether `model` adds pictures between layers."""
    return hasattr(model, "separate_deepstack_embeds")


def seen(model: Any, text: list[int], *, prompt: int, seed: int) -> tuple[list[int], Any]:
    """`text` with a picture in the place of some tokens, and the engine's own record of it."""
    scheduled: Any = importlib.import_module("sglang.srt.managers.schedule_batch")
    torch: Any = importlib.import_module("torch")
    width = model.config.hidden_size * (1 + len(model.deepstack_visual_indexes))
    spec = {"shape": [LAST - FIRST + 1, width], "kind": "embedding"}
    parameter = next(model.parameters())
    said = weights.full_tensor(f"picture {prompt}", spec, seed=seed, dtype=parameter.dtype)
    item = scheduled.MultimodalDataItem(
        modality=scheduled.Modality.IMAGE,
        offsets=[(FIRST, LAST)],
        precomputed_embeddings=said.to(parameter.device),
    )
    item.set_pad_value()
    places = torch.arange(len(text)).expand(3, -1)
    picture = scheduled.MultimodalInputs(
        mm_items=[item], mrope_positions=places, mrope_position_delta=torch.zeros(1, 1)
    )
    return [*text[:FIRST], *[item.pad_value] * (LAST - FIRST + 1), *text[LAST + 1 :]], picture
