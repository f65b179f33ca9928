"""A second opinion: transformers writes a checkpoint in the hub's form and answers itself.

A drive, as `drive` is one: a case with `write` makes the tiny configuration, weights through
transformers' own class, ``save_pretrained``, and what that class says about the same prompts. Any
other case is `drive`'s; launched with ``--load-format=auto`` the engine's own ``load_weights``
reads the checkpoint.
"""

import importlib
from pathlib import Path
from typing import Any

from verify.engines.inside.checkpoint import Said, save
from verify.engines.vllm.serving.inside import drive

load = drive.load
rank = drive.rank


def prepare(case: dict[str, Any], folder: Path) -> Any:
    """`drive.prepare`, and the checkpoint and transformers' answer for a case with `write`."""
    prepared = drive.prepare(case, folder)
    if "write" in case:
        seed = case["seed"]
        weights = importlib.import_module("verify.engines.vllm.serving.inside.weights")

        def value(name: str, tensor: Any) -> Any:
            shape = list(tensor.shape)
            return weights.full_tensor(name, shape, seed=seed, dtype=tensor.dtype)

        save(
            Path(case["into"]),
            seed=seed,
            value=value,
            answers=lambda model: _answers(model, seed=seed),
        )
    return prepared


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
