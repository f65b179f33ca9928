"""A checkpoint in the hub's form that transformers writes and answers: a second opinion.

Runs inside the engine's Python (standard library, torch and transformers).
"""

import base64
import importlib
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

REFERENCE = "reference.rows"

Said = Iterable[tuple[str, int, Any]]
"""Step, prompt and log-probabilities, a float32 tensor."""


def prepare(
    drive: Any,
    case: dict[str, Any],
    folder: Path,
    *,
    value: Callable[..., Any],
    answers: Callable[..., Said],
) -> Any:
    """`drive.prepare`, and the checkpoint and transformers' answer for a case with `write`."""
    prepared = drive.prepare(case, folder)
    if "write" in case:
        seed = case["seed"]
        save(
            Path(case["into"]),
            seed=seed,
            value=partial(value, seed=seed),
            answers=partial(answers, seed=seed),
        )
    return prepared


def save(
    folder: Path,
    *,
    seed: int,
    value: Callable[[str, Any], Any],
    answers: Callable[[Any], Said],
) -> None:
    """Weights of the model of ``folder/config.json`` beside it, and `REFERENCE`, what it says.

    A parameter, or a buffer that is a bias, gets what `value` makes of its name and itself.
    Raises ValueError where transformers has no class for the configuration.
    """
    transformers = importlib.import_module("transformers")
    torch = importlib.import_module("torch")
    text = (folder / "config.json").read_text("utf-8")
    config = transformers.AutoConfig.from_pretrained(folder)
    torch.manual_seed(seed)
    auto = transformers.AutoModelForCausalLM
    model = auto.from_config(config, dtype=torch.float32, attn_implementation="eager")
    buffers = [(name, one) for name, one in model.named_buffers() if "bias" in name]
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *buffers]:
            tensor.copy_(value(name, tensor))
        model.save_pretrained(folder)
        (folder / "config.json").write_text(text, encoding="utf-8")
        rows = [
            {"step": step, "prompt": prompt, "logprobs": _packed(values)}
            for step, prompt, values in answers(model.eval())
        ]
    (folder / REFERENCE).write_text(json.dumps(rows), encoding="utf-8")


def _packed(values: Any) -> str:
    """As the rows of a rank have them."""
    return base64.b64encode(values.numpy().astype("<f4").tobytes()).decode()
