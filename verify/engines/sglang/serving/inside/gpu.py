"""Drives SGLang on GPUs with its own kernels: every process of every case imports the engine.

Importing initialises CUDA, which no fork survives. So the process that starts ranks imports
nothing; a child of it, the clerk, imports the engine first of all, says what it found, and writes
tiny configurations. Rank 0 reads the launch, as the server's first process does, and the others
take its reading over from a file.

As `drive` it is standard library, torch and the engine only.
"""

import importlib
import json
import os
import pickle
import time
import traceback
from pathlib import Path
from typing import IO, Any

from verify.engines.sglang.serving.inside import drive, stubs

# kernels are compiled by programs and kept in the user's caches, and CUDA maps more addresses than
# any limit: nothing but time limits holds this
CAGED = False

STAND_INS = {
    "config-names": "a release may name a configuration that a later transformers has as well; "
    "the release's own is taken",
    "cached-prefix": "the correctness test of 0.5.11 gives requests each other's cached prefixes; "
    "each its own, as in later releases",
    "unused": f"modules that no case needs are mocks that raise: {', '.join(stubs.UNUSED)}",
}

# Widths that the engine's kernels are made for; those of a CPU's tiny models are narrower. And
# every expert for every token: in bfloat16 a choice among scores that are nearly equal comes out
# one way or the other, which is as far as a fault (docs/serve.md)
SIZES = {
    **dict.fromkeys(
        ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k"), 8
    ),
    "dtype": "bfloat16",
    "hidden_size": 256,
    "out_hidden_size": 256,
    "head_dim": 64,
    "attention_head_dim": 64,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}

# who stands before this platform's collectives
COLLECTIVES = "groups"
_CLERK: dict[str, IO[str]] = {}
LAUNCH = "launch.pickle"


def import_engine() -> None:
    """Import the engine into this process, with what stands in for nothing that a case runs."""
    stubs.install_unused()
    importlib.import_module("verify.engines.sglang.serving.inside.standins").own_config_names()
    drive.imported()


def devices() -> list[str]:
    """The names of the GPUs that torch sees."""
    cuda: Any = importlib.import_module("torch").cuda
    return [str(cuda.get_device_name(number)) for number in range(cuda.device_count())]


def about() -> dict[str, Any]:
    """What the clerk says first; without a GPU it imports no engine."""
    found = devices()
    if not found:
        return {"version": "not imported", "gpus": 0, "stand_ins": {}}
    import_engine()
    return {
        **drive.versions(),
        "gpus": len(found),
        "device": f"{len(found)} x {found[0]}",
        "stand_ins": STAND_INS,
        "stubs": list(stubs.UNUSED),
    }


def load() -> dict[str, Any]:
    """Start the clerk; what it says of the engine."""
    asked, ask = os.pipe()
    said, say = os.pipe()
    if os.fork() == 0:
        os.close(ask)
        os.close(said)
        _serve(asked, say)
    os.close(asked)
    os.close(say)
    _CLERK.update(ask=os.fdopen(ask, "w"), said=os.fdopen(said))
    hello = _answer()
    if "error" in hello:
        raise RuntimeError(hello["error"])
    return hello


def prepare(case: dict[str, Any], folder: Path) -> Any:
    """The clerk's work for a case with `write`; for any other, nothing before ranks."""
    del folder
    if "write" in case:
        _CLERK["ask"].write(json.dumps(case) + "\n")
        _CLERK["ask"].flush()
        answer = _answer()
        if "error" in answer:
            raise RuntimeError(answer["error"])


def rank(prepared: Any, case: dict[str, Any], folder: Path, rank: int) -> dict[str, Any]:
    """As `drive.rank`, with the engine imported here. Raises `drive.RefusedError` on rank 0."""
    if "accuse" not in case:
        import_engine()
        prepared = _resolved(case, folder) if rank == 0 else _taken_over(case, folder)
    return drive.rank(prepared, case, folder, rank, collectives=COLLECTIVES)


def _serve(asked: int, say: int) -> None:
    """In the clerk: say what the engine is, then write configurations until nobody asks."""
    with os.fdopen(asked) as requests, os.fdopen(say, "w") as answers:
        _say(answers, about)
        for line in requests:
            case = json.loads(line)
            _say(answers, lambda case=case: _written(case))
    os._exit(0)


def _written(case: dict[str, Any]) -> dict[str, Any]:
    families = importlib.import_module("verify.engines.sglang.serving.inside.tiny_families")
    families.SIZES.update(SIZES)
    drive.prepare(case, Path())
    return {}


def _say(answers: IO[str], what: Any) -> None:
    try:
        said = what()
    except BaseException:
        said = {"error": traceback.format_exc()}
    answers.write(json.dumps(said) + "\n")
    answers.flush()


def _answer() -> dict[str, Any]:
    line = _CLERK["said"].readline()
    return (
        dict(json.loads(line)) if line else {"error": "the process that imports the engine ended"}
    )


def _resolved(case: dict[str, Any], folder: Path) -> Any:
    """Rank 0's reading of the launch, and what it set in the environment, for the others too."""
    before = dict(os.environ)
    resolved = drive.resolved(case, log=folder / "log0")
    changed = {key: value for key, value in os.environ.items() if before.get(key) != value}
    draft = folder / f"{LAUNCH}.draft"
    draft.write_bytes(pickle.dumps((changed, resolved)))
    draft.replace(folder / LAUNCH)
    return resolved


def _taken_over(case: dict[str, Any], folder: Path) -> Any:
    """Rank 0's reading; whoever waits here for nothing ends with rank 0, or at the case's limit."""
    drive.register(case)
    while not (folder / LAUNCH).exists():
        time.sleep(0.05)
    changed, resolved = pickle.loads((folder / LAUNCH).read_bytes())
    os.environ.update(changed)
    return resolved
