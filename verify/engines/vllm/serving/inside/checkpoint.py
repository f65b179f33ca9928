"""A second opinion: transformers writes a checkpoint in the hub's form and answers itself.

A drive, as `drive` is one: a case with `write` makes the tiny configuration, weights through
transformers' own class, ``save_pretrained``, and `REFERENCE`, what that class says about the same
prompts. Any other case is `drive`'s; launched with ``--load-format=auto`` the engine's own
``load_weights`` reads the checkpoint.
"""

import base64
import importlib
import json
from pathlib import Path
from typing import Any

from verify.engines.vllm.serving.inside import drive

REFERENCE = "reference.rows"

load = drive.load
rank = drive.rank


def prepare(case: dict[str, Any], folder: Path) -> Any:
    """`drive.prepare`, and the checkpoint and transformers' answer for a case with `write`."""
    prepared = drive.prepare(case, folder)
    if "write" in case:
        model = write(Path(case["into"]), seed=case["seed"])
        rows = reference(model, seed=case["seed"])
        Path(case["into"], REFERENCE).write_text(json.dumps(rows), encoding="utf-8")
    return prepared


def write(folder: Path, *, seed: int) -> Any:
    """The transformers model of ``folder/config.json``, whose weights are saved beside it.

    Raises ValueError where transformers has no class for it.
    """
    transformers = importlib.import_module("transformers")
    torch = importlib.import_module("torch")
    weights = importlib.import_module("verify.engines.vllm.serving.inside.weights")
    text = (folder / "config.json").read_text("utf-8")
    config = transformers.AutoConfig.from_pretrained(folder)
    auto = transformers.AutoModelForCausalLM
    model = auto.from_config(config, dtype=torch.float32, attn_implementation="eager")
    buffers = [(name, one) for name, one in model.named_buffers() if "bias" in name]
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *buffers]:
            shape = list(tensor.shape)
            tensor.copy_(weights.full_tensor(name, shape, seed=seed, dtype=tensor.dtype))
    model.save_pretrained(folder)
    (folder / "config.json").write_text(text, encoding="utf-8")
    return model.eval()


def reference(model: Any, *, seed: int) -> list[dict[str, Any]]:
    """What `model` says in each step of the test, in the form of `drive.rank`'s rows."""
    torch = importlib.import_module("torch")
    texts, forced = drive.prompts(seed)
    rows = []
    with torch.no_grad():
        for prompt, (text, token) in enumerate(zip(texts, forced, strict=True)):
            given = torch.tensor([text + [token] * drive.DECODE])
            said = torch.log_softmax(model(given, use_cache=False).logits[0].float(), -1)
            parts = [said[: len(text)], *said[len(text) :].split(1)]
            for step, values in zip(drive.STEPS, parts, strict=True):
                packed = base64.b64encode(values.numpy().astype("<f4").tobytes()).decode()
                rows.append({"step": step, "prompt": prompt, "logprobs": packed})
    return rows
