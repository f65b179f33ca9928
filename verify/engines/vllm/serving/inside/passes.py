"""One rank's runs over one loaded model: as it is, and with one thing changed each.

Runs inside the engine's Python (standard library, torch and vllm).
"""

import base64
import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from verify.engines.inside.changes import (
    DOUBLED,
    DROPPED,
    Change,
    keep,
    moved,
    one_slice,
    parts_held,
    spoiled,
    variants,
)
from verify.engines.inside.modules import Running
from verify.engines.inside.witness import Witness
from verify.engines.vllm.serving.inside import corrupt
from verify.engines.vllm.serving.inside.drive import DECODE, STEPS

LEAST = -1e4
"""The log-probability of what a model never says."""


class Test:
    """`run` generates once; `mine` are the prompts of this rank's group, `forced` their tokens."""

    __test__ = False

    def __init__(
        self, *, offline: Any, texts: list[list[int]], forced: list[int], mine: list[int]
    ) -> None:
        self._offline, self._texts, self._forced, self._mine = offline, texts, forced, mine
        worker = offline.llm_engine.model_executor.driver_worker
        self.model: Any = getattr(worker, "worker", worker).model_runner.model
        self._passes = 0
        self.model.register_forward_pre_hook(self._count)

    @property
    def step(self) -> str:
        """The step that runs, or the last one."""
        return STEPS[max(0, min(self._passes, len(STEPS)) - 1)]

    def run(self) -> list[dict[str, Any]]:
        """A row a step and prompt: base64 of float32 log-probabilities, all positions in one."""
        self._passes = 0
        vllm: Any = importlib.import_module("vllm")
        # log-probabilities are taken before the one allowed token is: no tie makes runs differ
        parameters = [
            vllm.SamplingParams(
                temperature=0,
                max_tokens=DECODE + 1,
                ignore_eos=True,
                detokenize=False,
                prompt_logprobs=-1,
                logprobs=-1,
                allowed_token_ids=[self._forced[prompt]],
            )
            for prompt in self._mine
        ]
        given = [{"prompt_token_ids": self._texts[prompt]} for prompt in self._mine]
        answers = self._offline.generate(given, parameters, use_tqdm=False)
        return [
            {"step": step, "prompt": prompt, "logprobs": _encoded(tables)}
            for prompt, answer in zip(self._mine, answers, strict=True)
            for step, tables in _by_step(answer)
        ]

    def _count(self, _module: Any, _given: Any) -> None:
        self._passes += 1


def run(
    test: Test, *, case: dict[str, Any], shapes: Path, folder: Path, rank: int
) -> dict[str, Any]:
    """`rows` of the model as it is, and a `variants` entry (`change`, `rows`) for each change.

    `changes` of the case is a list, or "own": each collective of this launch doubled and dropped,
    and one slice of one parameter. What modules make of rows is kept in `folder/witness`.
    `again` is false where the model, run once more in the end, says something else than at first.
    """
    running = Running()
    root = Path(str(importlib.import_module("vllm").__file__)).parent
    collectives = corrupt.Collectives(running=running, root=root)
    witness = Witness(running, step=lambda: test.step)
    running.attach(test.model)
    named: Any = importlib.import_module(
        "vllm.distributed.device_communicators.cpu_communicator"
    ).CpuCommunicator
    collectives.install(named)
    collectives.active = witness.active = True
    rows = test.run()
    witness.take(folder / "witness" / f"rank{rank}.pt")
    # whatever a change does to the process, the model as it is went through
    keep(folder, rank, {"rows": rows})
    seen = dict(collectives.seen)
    sites = _agreed(seen) if case["ranks"] > 1 else []
    slices = parts_held(test.model, shapes)
    changes = case.get("changes", [])
    if changes == "own":
        changes = [{"site": each["words"], "how": how} for each in sites for how in each["hows"]]
        changes += one_slice(slices, seed=case["seed"])
    said = variants(
        changes,
        made=lambda change: _changed(change, model=test.model, collectives=collectives, rank=rank),
        run=test.run,
        witness=witness,
        folder=folder,
        rank=rank,
        watch=case.get("watch", False),
    )
    return {
        "rows": rows,
        "unfilled": [],
        "variants": said,
        "again": not changes or test.run() == rows,
        "sites": [{**site, "count": seen.get(tuple(site["words"]), 0)} for site in sites],
        "slices": slices,
        "groups": _groups(),
    }


def _by_step(answer: Any) -> Iterator[tuple[str, list[Any]]]:
    """The prompt's own positions and its first answer are the prefill; then a token a step."""
    first, *others = answer.outputs[0].logprobs
    yield STEPS[0], [*answer.prompt_logprobs[1:], first]
    for step, table in zip(STEPS[1:], others, strict=True):
        yield step, [table]


def _encoded(tables: list[Any]) -> str:
    values = [[table[token].logprob for token in range(len(table))] for table in tables]
    # Moondream allows no answer token: minus infinity, which no difference can be taken of
    return base64.b64encode(
        torch.tensor(values).clamp(min=LEAST).numpy().astype("<f4").tobytes()
    ).decode()


@contextlib.contextmanager
def _changed(
    change: Change, *, model: Any, collectives: corrupt.Collectives, rank: int
) -> Iterator[None]:
    if "seed" in change:
        with moved(model, size=change["size"], seed=change["seed"]):
            yield
    elif "slice" in change:
        with spoiled(model, change, rank=rank):
            yield
    else:
        place, module, function, size = change["site"]
        collectives.corrupt((place, module, function, size), change["how"])
        yield
        collectives.corrupt(None)


def _agreed(mine: dict[corrupt.Site, int]) -> list[dict[str, Any]]:
    """The sites of all ranks in one order, each with the ways in which it can be wrong."""
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, list(mine))
    hows = [DOUBLED, DROPPED]
    words = sorted({tuple(site) for sites in everyone for site in sites})
    return [{"words": list(site), "hows": hows, "elsewhere": []} for site in words]


def _groups() -> list[list[int]]:
    """The engine's groups that this rank is in, as lists of ranks."""
    state: Any = importlib.import_module("vllm.distributed.parallel_state")
    living = [reference() for reference in state._groups.values()]
    found = {tuple(each.ranks) for each in living if each is not None}
    return [list(ranks) for ranks in sorted(found)]
