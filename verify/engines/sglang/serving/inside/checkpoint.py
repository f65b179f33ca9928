"""A second opinion: transformers writes a checkpoint in the hub's form and answers itself.

A drive, as `drive` is one: a case with `write` makes the tiny configuration, random
weights through transformers' own class, ``save_pretrained``, and `REFERENCE`, what that
class says about the same prompts. Any other case is `drive`'s; launched with
``--load-format auto`` the engine's own ``load_weights`` reads the checkpoint.
"""

import base64
import importlib
import json
from pathlib import Path
from typing import Any

from verify.engines.sglang.serving.inside import drive, record

REFERENCE = "reference.rows"

load = drive.load
PROGRAMS = drive.PROGRAMS
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
    text = (folder / "config.json").read_text("utf-8")
    config = transformers.AutoConfig.from_pretrained(folder)
    torch = importlib.import_module("torch")
    torch.manual_seed(seed)
    auto = transformers.AutoModelForCausalLM
    model = auto.from_config(config, dtype=torch.float32, attn_implementation="eager")
    _fill(model, seed=seed)
    model.save_pretrained(folder)
    (folder / "config.json").write_text(text, encoding="utf-8")
    return model.eval()


def _fill(model: Any, *, seed: int) -> None:
    """Values as those of the engine's weights; the router's correction is a buffer here."""
    torch = importlib.import_module("torch")
    weights = importlib.import_module("verify.engines.sglang.serving.inside.weights")
    buffers = [(name, one) for name, one in model.named_buffers() if "bias" in name]
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *buffers]:
            spec = {"shape": list(tensor.shape), "kind": _kind(name, tensor)}
            tensor.copy_(weights.full_tensor(name, spec, seed=seed, dtype=tensor.dtype))


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


def reference(model: Any, *, seed: int) -> list[dict[str, Any]]:
    """What `model` says after each step of the test, in the form of `drive.rank`'s rows."""
    torch = importlib.import_module("torch")
    texts, forced = drive.prompts(seed)
    rows = []
    with torch.no_grad():
        for prompt, (text, given) in enumerate(zip(texts, forced, strict=True)):
            logits = model(torch.tensor([text + given]), use_cache=False).logits[0].float()
            places = [record.CUT - 1, *range(len(text) - 1, len(text) + record.DECODE)]
            for step, place in zip(record.STEPS, places, strict=True):
                values = torch.log_softmax(logits[place], -1).numpy().astype("<f4").tobytes()
                packed = base64.b64encode(values).decode()
                rows.append({"step": step, "prompt": prompt, "logprobs": packed})
    return rows
