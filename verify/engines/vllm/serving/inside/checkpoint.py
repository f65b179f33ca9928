"""A second opinion: transformers writes a checkpoint in the hub's form and answers itself.

A drive, as `drive` is one: a case with `write` makes the tiny configuration, weights through
transformers' own class, ``save_pretrained``, and what that class says about the same prompts. Any
other case is `drive`'s; launched with ``--load-format=auto`` the engine's own ``load_weights``
reads the checkpoint.
"""

import importlib
from pathlib import Path
from typing import Any

from verify.engines.inside import checkpoint
from verify.engines.inside.checkpoint import Said
from verify.engines.vllm.serving.inside import drive

load = drive.load
rank = drive.rank


def prepare(case: dict[str, Any], folder: Path) -> Any:
    """`drive.prepare`, and the second opinion of a case with `write`."""
    return checkpoint.prepare(drive, case, folder, value=_value, answers=_answers)


def _value(name: str, tensor: Any, *, seed: int) -> Any:
    weights = importlib.import_module("verify.engines.vllm.serving.inside.weights")
    return weights.full_tensor(name, list(tensor.shape), seed=seed, dtype=tensor.dtype)


def _answers(model: Any, *, seed: int) -> Said:
    """What `model` says in each step of the test."""
    torch = importlib.import_module("torch")
    texts, forced = drive.prompts(seed)
    for prompt, (text, token) in enumerate(zip(texts, forced, strict=True)):
        given = torch.tensor([text + [token] * drive.DECODE])
        said = torch.log_softmax(model(given, use_cache=False).logits[0].float(), -1)
        parts = [said[: len(text)], *said[len(text) :].split(1)]
        for step, values in zip(drive.STEPS, parts, strict=True):
            yield step, prompt, values
