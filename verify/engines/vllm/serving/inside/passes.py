"""One rank's runs over one loaded model: as it is, and with one thing changed each.

Runs inside the engine's Python (standard library, torch and vllm).
"""

import base64
import contextlib
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from verify.engines.inside.modules import Running, pattern
from verify.engines.inside.witness import Witness
from verify.engines.vllm.serving.inside import corrupt
from verify.engines.vllm.serving.inside.drive import DECODE, STEPS

Change = dict[str, Any]
"""`{"seed", "size"}` moves every weight, `{"site", "how"}` spoils a collective, `{"slice", "rank"}`
sets a parameter of one rank to zero, with `how` "unset" to what is not a number."""


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
    (folder / f"clean{rank}").touch()
    seen = dict(collectives.seen)
    sites = _agreed(seen) if case["ranks"] > 1 else []
    slices = _slices(test.model, shapes)
    changes = case.get("changes", [])
    if changes == "own":
        changes = [{"site": each["words"], "how": how} for each in sites for how in each["hows"]]
        changes += _one_slice(slices, seed=case["seed"])
    variants = []
    for number, change in enumerate(changes):
        # only changes that no layout makes say how near a module's values must be
        witness.active = "seed" in change
        with _changed(change, model=test.model, collectives=collectives, rank=rank):
            variants.append({"change": change, "rows": test.run()})
        if witness.active:
            witness.take(folder / "witness" / f"change{number}.rank{rank}.pt")
    witness.active = False
    return {
        "rows": rows,
        "unfilled": [],
        "variants": variants,
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
    return base64.b64encode(torch.tensor(values).numpy().astype("<f4").tobytes()).decode()


@contextlib.contextmanager
def _changed(
    change: Change, *, model: Any, collectives: corrupt.Collectives, rank: int
) -> Iterator[None]:
    if "seed" in change:
        with _moved(model, size=change["size"], seed=change["seed"]):
            yield
    elif "slice" in change:
        tensor = dict(model.named_parameters())[change["slice"]]
        before = tensor.detach().clone()
        if rank == change["rank"]:
            tensor.data.fill_(float("nan") if change.get("how") == corrupt.NAN else 0.0)
        yield
        tensor.data.copy_(before)
    else:
        place, module, function, size = change["site"]
        collectives.corrupt((place, module, function, size), change["how"])
        yield
        collectives.corrupt(None)


@contextlib.contextmanager
def _moved(model: Any, *, size: float, seed: int) -> Iterator[None]:
    """Every weight larger or smaller by `size` of itself, at random, and then as it was."""
    draw = torch.Generator().manual_seed(seed)
    parameters = [each for each in model.parameters() if each.is_floating_point()]
    before = [each.detach().clone() for each in parameters]
    with torch.no_grad():
        for parameter in parameters:
            up = torch.randint(0, 2, parameter.shape, generator=draw).to(parameter.dtype)
            parameter.data.mul_(1 + size * (2 * up - 1))
        yield
        for parameter, value in zip(parameters, before, strict=True):
            parameter.data.copy_(value)


def _agreed(mine: dict[corrupt.Site, int]) -> list[dict[str, Any]]:
    """The sites of all ranks in one order, each with the ways in which it can be wrong."""
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, list(mine))
    hows = [corrupt.DOUBLED, corrupt.DROPPED]
    words = sorted({tuple(site) for sites in everyone for site in sites})
    return [{"words": list(site), "hows": hows, "elsewhere": []} for site in words]


def _one_slice(mine: list[str], *, seed: int) -> list[Change]:
    """One parameter of the last rank, another one for another seed."""
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    last = len(everyone) - 1
    slices = everyone[last]
    return [{"slice": slices[seed % len(slices)], "rank": last}] if slices else []


def _groups() -> list[list[int]]:
    """The engine's groups that this rank is in, as lists of ranks."""
    state: Any = importlib.import_module("vllm.distributed.parallel_state")
    living = [reference() for reference in state._groups.values()]
    found = {tuple(each.ranks) for each in living if each is not None}
    return [list(ranks) for ranks in sorted(found)]


def _slices(model: Any, shapes: Path) -> list[str]:
    """Parameters that this rank holds a part of; of those that differ in their layer, the first."""
    whole = json.loads(shapes.read_text("utf-8")) if shapes.exists() else {}
    found: dict[str, str] = {}
    for name, tensor in model.named_parameters():
        part = name in whole and list(tensor.shape) != whole[name]["shape"]
        if part and torch.is_floating_point(tensor):
            found.setdefault(pattern(name), name)
    return list(found.values())
