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
from verify.engines.vllm.serving.inside import corrupt, standins
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
        runner = getattr(worker, "worker", worker).model_runner
        self.model: Any = runner.model
        state: Any = importlib.import_module("vllm.distributed.parallel_state")
        # an earlier stage has no logits of a prompt: asked for them, the engine's own code fails
        self._last: bool = state.get_pp_group().is_last_rank
        if not state.get_pp_group().is_first_rank:
            standins.received(runner)
        self._caches: list[Any] = runner.kv_caches
        self._passes = 0
        self.model.register_forward_pre_hook(self._count)

    @property
    def step(self) -> str:
        """The step that runs, or the last one."""
        return STEPS[max(0, min(self._passes, len(STEPS)) - 1)]

    def run(self) -> list[dict[str, Any]]:
        """A row a step and prompt: base64 of float32 log-probabilities, all positions in one.

        An earlier pipeline stage is told the logits of what is decoded, and has no prefill.
        """
        self._passes = 0
        # what is no number stays in a cache, and a masked place of it times zero is none either
        for cache in self._caches:
            for part in cache if isinstance(cache, list | tuple) else [cache]:
                part.zero_()
        vllm: Any = importlib.import_module("vllm")
        # log-probabilities are taken before the one allowed token is: no tie makes runs differ
        parameters = [
            vllm.SamplingParams(
                temperature=0,
                max_tokens=DECODE + 1,
                ignore_eos=True,
                detokenize=False,
                prompt_logprobs=-1 if self._last else None,
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
    communicators: Any = importlib.import_module(
        "vllm.distributed.device_communicators.cpu_communicator"
    )
    state: Any = importlib.import_module("vllm.distributed.parallel_state")
    collectives.install(communicators.CpuCommunicator, state.GroupCoordinator)
    collectives.active = witness.active = True
    rows = test.run()
    witness.take(folder / "witness" / f"rank{rank}.pt")
    # whatever a change does to the process, the model as it is went through
    keep(folder, rank, {"rows": rows})
    seen = dict(collectives.seen)
    sites = _agreed(collectives) if case["ranks"] > 1 else []
    slices = _read(parts_held(test.model, shapes), test.model)
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
        "groups": [list(ranks) for ranks in sorted(set(_groups().values()))],
    }


def _by_step(answer: Any) -> Iterator[tuple[str, list[Any]]]:
    """The prompt's own positions and its first answer are the prefill; then a token a step."""
    first, *others = answer.outputs[0].logprobs
    if answer.prompt_logprobs:
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
        how, other = change["how"], None
        if how.startswith(corrupt.ELSEWHERE):
            other = _coordinators()[how.removeprefix(corrupt.ELSEWHERE)].device_communicator
        collectives.corrupt((place, module, function, size), how, other)
        yield
        collectives.corrupt(None)


def _agreed(collectives: corrupt.Collectives) -> list[dict[str, Any]]:
    """The sites of all ranks in one order, and in which ways and over what each can be wrong."""
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, (collectives.ranks, _groups()))
    names = sorted(set.intersection(*(set(groups) for _, groups in everyone)))
    others = {name: [groups[name] for _, groups in everyone] for name in names}
    hows = [DOUBLED, DROPPED]
    return [
        {
            "words": list(site),
            "hows": hows,
            "elsewhere": corrupt.elsewhere(
                site, [tuple(ranks.get(site, ())) for ranks, _ in everyone], others
            ),
        }
        for site in sorted({site for ranks, _ in everyone for site in ranks})
    ]


def _read(names: list[str], model: torch.nn.Module) -> list[str]:
    """Of `names` of parameters those that this stage reads: a later one looks no token up."""
    state: Any = importlib.import_module("vllm.distributed.parallel_state")
    if state.get_pp_group().is_first_rank:
        return names
    embedding: Any = importlib.import_module(
        "vllm.model_executor.layers.vocab_parallel_embedding"
    ).VocabParallelEmbedding
    # a head is one too, of a class of its own
    unread = {f"{name}.weight" for name, each in model.named_modules() if type(each) is embedding}
    return [name for name in names if name not in unread]


def _coordinators() -> dict[str, Any]:
    """The engine's groups by name, without those that no tensor goes over."""
    state: Any = importlib.import_module("vllm.distributed.parallel_state")
    living = {name: reference() for name, reference in state._groups.items()}
    return {name: each for name, each in living.items() if each and each.device_communicator}


def _groups() -> dict[str, tuple[int, ...]]:
    """The engine's groups by name: the ranks of the one that this rank is in."""
    return {name: tuple(each.ranks) for name, each in _coordinators().items()}
