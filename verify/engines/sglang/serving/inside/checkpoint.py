"""A second opinion: transformers writes a checkpoint in the hub's form and answers itself.

A drive, as `drive` is one: a case with `write` makes the tiny configuration, weights through
transformers' own class, ``save_pretrained``, and what that class says about the same prompts. Any
other case is `drive`'s; launched with ``--load-format auto`` the engine's own ``load_weights``
reads the checkpoint.
"""

import importlib
from pathlib import Path
from typing import Any

from verify.engines.inside import checkpoint
from verify.engines.inside.checkpoint import Said
from verify.engines.sglang.serving.inside import drive, record

load = drive.load
PROGRAMS = drive.PROGRAMS
rank = drive.rank


def prepare(case: dict[str, Any], folder: Path) -> Any:
    """`drive.prepare`, and the second opinion of a case with `write`."""
    return checkpoint.prepare(drive, case, folder, value=_value, answers=_answers)


def _value(name: str, tensor: Any, *, seed: int) -> Any:
    weights = importlib.import_module("verify.engines.sglang.serving.inside.weights")
    # the router's correction is a buffer here
    spec = {"shape": list(tensor.shape), "kind": _kind(name, tensor)}
    return weights.full_tensor(name, spec, seed=seed, dtype=tensor.dtype)


def _kind(name: str, tensor: Any) -> str:
    if "correction" in name or "moe_statics" in name:
        return "correction"
    if "norm" in name and "bias" not in name:
        return "one"
    if tensor.dim() < 2 or "bias" in name:
        return "small"
    if "embed" in name:
        return "embedding"
    gate = name.removesuffix(".weight").rsplit(".", 1)[-1] in ("gate", "router", "classifier")
    return "router" if gate else "projection"


def _answers(model: Any, *, seed: int) -> Said:
    """What `model` says after each step of the test."""
    torch = importlib.import_module("torch")
    texts, forced = drive.prompts(seed)
    for prompt, (text, given) in enumerate(zip(texts, forced, strict=True)):
        logits = model(torch.tensor([text + given]), use_cache=False).logits[0].float()
        places = [record.CUT - 1, *range(len(text) - 1, len(text) + record.DECODE)]
        for step, place in zip(record.STEPS, places, strict=True):
            yield step, prompt, torch.log_softmax(logits[place], -1)
