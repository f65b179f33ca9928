"""Drives SGLang's own one-batch correctness test on one rank of a launch, and keeps what it says.

Prefill of 4 tokens, extension over the cached prefix, decode with given tokens. `load_model`,
`extend` and `decode` have the same signatures in 0.5.10.post1, 0.5.11, 0.5.17, 0.5.19, 0.5.20
and 0.5.23.
"""

import importlib
import os
import platform
import random
from pathlib import Path
from typing import Any

from verify.engines.sglang.serving.inside import record, stubs
from verify.engines.sglang.serving.inside.record import CUT, DECODE

# an odd number, so that no two groups of ranks that share prompts out have equally many
PROMPTS = 7
BATCH = 8
VOCABULARY = 250

# what the engine asks for the processors' topology
PROGRAMS = ("lscpu",)
TRIED = "the stand-ins were made for: 0.5.10.post1 to 0.5.23"

_ENGINE: dict[str, Any] = {}


class RefusedError(Exception):
    """The server does not accept this launch; the message is its own."""


def load() -> dict[str, Any]:
    """Import the engine with its stand-ins; its version and where it lies."""
    stubs.install()
    standins = importlib.import_module("verify.engines.sglang.serving.inside.standins")
    standins.register_custom_ops()
    standins.own_config_names()
    standins.tuning_keys()
    imported()
    try:
        standins.install()
    except (ImportError, AttributeError) as error:
        has = versions()["version"]
        raise ImportError(f"{error}; {has} is none of those that {TRIED}") from error
    return {**versions(), "stand_ins": standins.ALL, "stubs": list(stubs.STUBBED)}


def imported() -> None:
    """Import what a run takes of the engine, once in a process."""
    torch = importlib.import_module("torch")
    try:
        batch = importlib.import_module("sglang.benchmark.one_batch")
    except ImportError:
        batch = importlib.import_module("sglang.bench_one_batch")
    importlib.import_module("sglang.srt.models.registry")
    arguments = importlib.import_module("sglang.srt.server_args")
    _ENGINE.update(torch=torch, batch=batch, arguments=arguments)


def versions() -> dict[str, Any]:
    """What a result says of the engine's Python."""
    sglang = importlib.import_module("sglang")
    return {
        "version": sglang.__version__,
        "source": str(Path(str(sglang.__file__)).parent.parent),
        "python": platform.python_version(),
        "torch": importlib.import_module("torch").__version__,
        "transformers": importlib.import_module("transformers").__version__,
        "triton": importlib.import_module("triton").__version__,
    }


def prompts(seed: int) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts of unequal length, all longer than `CUT`, and the tokens that decode is given."""
    draw = random.Random(seed)
    lengths = draw.sample(range(CUT + 2, CUT + 2 + 2 * PROMPTS), PROMPTS)
    texts = [[draw.randrange(3, VOCABULARY) for _ in range(length)] for length in lengths]
    return texts, [[draw.randrange(3, VOCABULARY) for _ in range(DECODE)] for _ in texts]


def prepare(case: dict[str, Any], folder: Path) -> Any:
    """The server's own reading of the launch. Raises `RefusedError` with its words.

    A case with `write` has no ranks: it writes that model's configuration into `into`. One with
    `accuse` has one rank, and compares what earlier cases kept.
    """
    if "accuse" in case:
        return None
    if "write" in case:
        tiny = importlib.import_module("verify.engines.sglang.serving.inside.tiny")
        Path(case["into"]).mkdir(exist_ok=True)
        tiny.write(case["write"], Path(case["into"]))
        return None
    return resolved(case, log=folder / "log")


def register(case: dict[str, Any]) -> None:
    """Make transformers know the case's configuration, in each process that reads it."""
    tiny = importlib.import_module("verify.engines.sglang.serving.inside.tiny")
    tiny.register(Path(case["model"]))


def resolved(case: dict[str, Any], *, log: Path) -> Any:
    """The server's arguments and ports, and the test's; `log` has what this process prints.

    Raises `RefusedError`.
    """
    register(case)
    server, batch = _ENGINE["arguments"], _ENGINE["batch"]
    count = case["ranks"]
    os.environ["SGLANG_CPU_OMP_THREADS_BIND"] = "|".join(
        str(rank % (os.cpu_count() or 1)) for rank in range(count)
    )
    try:
        arguments = server.prepare_server_args(case["launch"])
        if hasattr(arguments, "resolve_once"):
            arguments.resolve_once()
    except SystemExit as error:
        # argparse has written its reason to the log
        said = log.read_text("utf-8", "replace").strip().splitlines()
        raise RefusedError(said[-1] if said else f"exit {error.code}") from error
    except (ValueError, AssertionError, NotImplementedError) as error:
        raise RefusedError(f"{type(error).__name__}: {error}") from error
    test = batch.BenchArgs(
        batch_size=(BATCH,),
        output_len=(DECODE + 1,),
        correctness_test=True,
        cut_len=CUT,
        prompt_filename="given",
    )
    return arguments, server.PortArgs.init_new(arguments), test


def rank(
    prepared: Any, case: dict[str, Any], folder: Path, rank: int, collectives: str = "corrupt"
) -> dict[str, Any]:
    """One rank's log-probabilities, and those of the same model with something changed.

    The keys are those of `passes.run`; for a case with `accuse`, `accused` of `accuse.accused`.
    `collectives` is the module here that stands before those of this platform.
    """
    if "accuse" in case:
        return {"rows": [], "unfilled": [], "accused": _accused(case)}
    torch, batch = _ENGINE["torch"], _ENGINE["batch"]
    passes = importlib.import_module("verify.engines.sglang.serving.inside.passes")
    torch.set_num_threads(1)
    arguments, ports, test = prepared
    texts, forced = prompts(case["seed"])
    mine = shares(case["groups"])[rank // (case["ranks"] // case["groups"])]
    kept = record.Record(batch=batch, texts=texts, forced=forced, mine=mine, seed=case["seed"])
    kept.install()
    if case["patch"]:
        source = Path(case["patch"]).read_text("utf-8")
        own = {"__name__": "patch", "__file__": case["patch"]}
        exec(compile(source, case["patch"], "exec"), own)
    weights = importlib.import_module("verify.engines.sglang.serving.inside.weights")
    weights.install(seed=case["seed"], shapes=Path(case["model"], "shapes.json"))
    return dict(
        passes.run(
            kept,
            lambda: batch.correctness_test(arguments, ports, test, rank, rank),
            case=case,
            folder=folder,
            rank=rank,
            kind=importlib.import_module(
                f"verify.engines.sglang.serving.inside.{collectives}"
            ).Collectives,
        )
    )


def shares(groups: int) -> list[list[int]]:
    """The prompts of each group of ranks."""
    return [[i for i in range(PROMPTS) if i % groups == group] for group in range(groups)]


def _accused(case: dict[str, Any]) -> dict[str, Any]:
    accuse = importlib.import_module("verify.engines.inside.accuse")
    texts, _ = prompts(case["seed"])
    lengths = {step: [1 for _ in texts] for step in record.STEPS}
    lengths["prefill"] = [CUT for _ in texts]
    lengths["extension"] = [len(text) - CUT for text in texts]
    return dict(accuse.of_case(case, lengths=lengths, shares=shares(case["groups"])))
