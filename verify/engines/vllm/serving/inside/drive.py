"""Drives vLLM's own offline `LLM` on one rank of a launch, as `torchrun` would.

A prefill of all prompts at once and decode steps with given tokens; log-probabilities of every
token of the vocabulary at every position, as the engine returns them (`prompt_logprobs`,
`logprobs`).
"""

import gc
import importlib
import os
import random
import socket
from pathlib import Path
from typing import Any

# an odd number, so that no two groups of ranks that share prompts out have equally many
PROMPTS = 7
SHORTEST = 6
DECODE = 3
VOCABULARY = 250
STEPS = ("prefill", *(f"decode {number + 1}" for number in range(DECODE)))

# what the engine says of a model whose file it cannot import
NOT_IMPORTED = "failed to be inspected"

_ENGINE: dict[str, Any] = {}
_INSIDE = "verify.engines.vllm.serving.inside"


class RefusedError(Exception):
    """The server does not accept this launch; the message is its own."""


def load() -> dict[str, Any]:
    """Import the engine with its stand-ins; its version and where it lies."""
    torch = importlib.import_module("torch")
    # asked before it can be imported, so that transformers goes on knowing that it is not there
    importlib.import_module("transformers.utils.import_utils").is_torchvision_available()
    importlib.import_module(f"{_INSIDE}.absent").stand_in("torchvision")
    vllm = importlib.import_module("vllm")
    for name in (
        "entrypoints.llm",
        "v1.worker.cpu_worker",
        "v1.worker.cpu_model_runner",
        "v1.engine.llm_engine",
        "v1.executor.uniproc_executor",
        "model_executor.models.qwen3_moe",
        "model_executor.models.deepseek_v2",
        "model_executor.models.transformers",
    ):
        importlib.import_module(f"vllm.{name}")
    standins = importlib.import_module(f"{_INSIDE}.standins")
    standins.install()
    tiny = importlib.import_module(f"{_INSIDE}.tiny")
    tiny.register()
    importlib.import_module(f"{_INSIDE}.weights").register()
    # once for all ranks, which would each look through every module
    platform: Any = importlib.import_module("vllm.platforms").current_platform
    platform.register_triton_kernel_overrides()
    type(platform).register_triton_kernel_overrides = classmethod(lambda cls: None)
    _ENGINE.update(torch=torch, arguments=importlib.import_module("vllm.engine.arg_utils"))
    # the engine collects garbage often: ranks have no part in what is there before they are
    gc.collect()
    gc.freeze()
    return {
        "version": vllm.__version__,
        "source": str(Path(str(vllm.__file__)).parent.parent),
        "torch": torch.__version__,
        "transformers": importlib.import_module("transformers").__version__,
        "stand_ins": standins.ALL,
    }


def prompts(seed: int) -> tuple[list[list[int]], list[int]]:
    """Prompts of unequal length, and the token that each is given in every decode step."""
    draw = random.Random(seed)
    lengths = draw.sample(range(SHORTEST, SHORTEST + 2 * PROMPTS), PROMPTS)
    texts = [[draw.randrange(3, VOCABULARY) for _ in range(length)] for length in lengths]
    return texts, [draw.randrange(3, VOCABULARY) for _ in texts]


def shares(groups: int) -> list[list[int]]:
    """The prompts of each group of ranks."""
    return [[i for i in range(PROMPTS) if i % groups == group] for group in range(groups)]


def prepare(case: dict[str, Any], folder: Path) -> Any:
    """The server's own reading of the launch. Raises `RefusedError` with its words.

    A case with `write` has no ranks: it writes that model's configuration into `into`. One with
    `accuse` has one rank, and compares what earlier cases kept.
    """
    if "accuse" in case:
        return None
    if "write" in case:
        Path(case["into"]).mkdir(exist_ok=True)
        importlib.import_module(f"{_INSIDE}.tiny").write(case["write"], Path(case["into"]))
        return None
    module = _ENGINE["arguments"]
    os.environ.update(
        WORLD_SIZE=str(case["ranks"]), MASTER_PORT=_port(), VLLM_DP_MASTER_PORT=_port()
    )
    _be(0)
    parser = module.EngineArgs.add_cli_args(module.FlexibleArgumentParser())
    try:
        arguments = module.EngineArgs.from_cli_args(parser.parse_args(case["launch"]))
        arguments.create_engine_config()
    except SystemExit as error:
        # argparse has written its reason to the log
        log = Path(folder, "log").read_text("utf-8", "replace").strip().splitlines()
        raise RefusedError(log[-1] if log else f"exit {error.code}") from error
    except (ValueError, AssertionError, NotImplementedError) as error:
        # a reason may come after a line that only counts the errors
        words = " ".join(str(error).split())
        if NOT_IMPORTED in words:
            # a package is missing here; the server said nothing about the launch
            raise NotImplementedError(words) from error
        raise RefusedError(f"{type(error).__name__}: {words}") from error
    return module.EngineArgs.from_cli_args(parser.parse_args(case["launch"]))


def rank(prepared: Any, case: dict[str, Any], folder: Path, rank: int) -> dict[str, Any]:
    """One rank's log-probabilities, and those of the same model with something changed.

    The keys are those of `passes.run`; for a case with `accuse`, `accused` of `accuse.accused`.
    """
    if "accuse" in case:
        return {"rows": [], "unfilled": [], "accused": _accused(case)}
    torch = _ENGINE["torch"]
    passes = importlib.import_module(f"{_INSIDE}.passes")
    torch.set_num_threads(1)
    _be(rank)
    if case["patch"]:
        source = Path(case["patch"]).read_text("utf-8")
        own = {"__name__": "patch", "__file__": case["patch"]}
        exec(compile(source, case["patch"], "exec"), own)
    shapes = Path(case["model"], "shapes.json")
    importlib.import_module(f"{_INSIDE}.weights").prepare(seed=case["seed"], shapes=shapes)
    texts, forced = prompts(case["seed"])
    mine = shares(case["groups"])[rank // (case["ranks"] // case["groups"])]
    offline = importlib.import_module("vllm").LLM.from_engine_args(prepared)
    test = passes.Test(offline=offline, texts=texts, forced=forced, mine=mine)
    return dict(passes.run(test, case=case, shapes=shapes, folder=folder, rank=rank))


def _be(rank: int) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))


def _port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _accused(case: dict[str, Any]) -> dict[str, Any]:
    accuse = importlib.import_module("verify.engines.inside.accuse")
    texts, _ = prompts(case["seed"])
    lengths = {step: [1 for _ in texts] for step in STEPS}
    lengths["prefill"] = [len(text) for text in texts]
    return dict(accuse.of_case(case, lengths=lengths, shares=shares(case["groups"])))
