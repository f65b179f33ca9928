"""All cases as one job: on processes of this machine, or as one rank of a torchrun job."""

import os
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from gpu_tests.cases import FLASHINFER_DTYPES, Case, Kernels, Library
from gpu_tests.judge import RankVerdict
from gpu_tests.kernels import why_no_flashinfer
from gpu_tests.outcome import Outcome
from gpu_tests.pool import rank_pool
from gpu_tests.rank_process import one_thread, own_device
from gpu_tests.ranks import Ranks
from gpu_tests.work import run_case
from verify.errors import VerifyError
from verify.report.progress import track

# blocks have no fewer experts than this, so that every EP size leaves each rank one
MAX_WORLD_SIZE = 16
# torchrun ranks report after so many cases
BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Torchrun:
    """This process's place in a torchrun job."""

    rank: int
    world_size: int
    local_rank: int

    @classmethod
    def from_environment(cls) -> "Torchrun | None":
        """None outside torchrun."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return None
        return cls(
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            local_rank=int(os.environ["LOCAL_RANK"]),
        )


def check_world(world_size: int, backend: str, *, local_ranks: int) -> None:
    """Raise `VerifyError` when `local_ranks` ranks of this machine cannot be started."""
    if not 1 <= world_size <= MAX_WORLD_SIZE:
        raise VerifyError(
            f"--world-size {world_size} fits no layout: give 1 to {MAX_WORLD_SIZE}, "
            "the number of experts in the smallest block"
        )
    if backend != "nccl":
        return
    if not torch.cuda.is_available():
        raise VerifyError("--backend nccl: torch finds no GPU here; use --backend gloo")
    if not torch.distributed.is_nccl_available():
        raise VerifyError("--backend nccl: this torch was built without NCCL; use --backend gloo")
    if torch.cuda.device_count() < local_ranks:
        raise VerifyError(
            f"--backend nccl: {local_ranks} ranks need {local_ranks} GPUs, this machine has "
            f"{torch.cuda.device_count()}: NCCL takes one rank a GPU; lower --world-size"
        )


def choose_kernels(
    *, experts: Library | None, norm: Library | None, backend: str
) -> tuple[Kernels, str]:
    """Which kernels to run on, and the choice in words. Raises `VerifyError` for the impossible.

    Without a wish the fused norm is flashinfer's where it can be: it compiles in minutes, the
    fused experts in more than twenty.
    """
    reason = why_no_flashinfer(torch.device("cuda" if backend == "nccl" else "cpu"))
    for option, asked in (("--experts", experts), ("--norm", norm)):
        if asked == "flashinfer" and reason:
            raise VerifyError(f"{option} flashinfer: {reason}")
    chosen = Kernels(experts=experts or "torch", norm=norm or ("torch" if reason else "flashinfer"))
    where = f" in {' and '.join(FLASHINFER_DTYPES)}, on torch otherwise"
    because = f" ({reason})" if reason and not (experts and norm) else ""
    told = [
        f"{what} on {library}{where if library == 'flashinfer' else ''}"
        for what, library in (
            ("Experts run", chosen.experts),
            ("fused all-reduce + norm", chosen.norm),
        )
    ]
    return chosen, f"{', '.join(told)}{because}."


def on_this_machine(
    cases: Sequence[Case], *, world_size: int, backend: str, deadline: float
) -> Iterator[Outcome]:
    """Start ranks, yield outcomes in the cases' order. Raises `RankFaultError` when a rank fails.

    Cases that are alike to ranks run once.
    """
    first: dict[Hashable, Case] = {}
    for case in cases:
        first.setdefault(case.alike, case)
    todo = list(first.values())
    with rank_pool(run_case, world_size=world_size, backend=backend, deadline=deadline) as pool:
        answers = pool.run(todo, titles=[case.title for case in todo])
        outcomes = _outcomes(cases, {key: place for place, key in enumerate(first)}, answers)
        yield from track(outcomes, what="cases run", total=len(cases))


def _outcomes(
    cases: Sequence[Case],
    places: Mapping[Hashable, int],
    answers: Iterator[tuple[int, list[RankVerdict]]],
) -> Iterator[Outcome]:
    """Every case's outcome from the answers to those of them that ran."""
    answered: list[list[RankVerdict]] = []
    for case in cases:
        place = places[case.alike]
        while len(answered) <= place:
            answered.append(next(answers)[1])
        yield Outcome.of(case, answered[place])


def under_torchrun(
    cases: Sequence[Case], *, place: Torchrun, backend: str, deadline: float
) -> Iterator[Outcome]:
    """Take part as one rank; outcomes come out on rank 0 only. torchrun handles lost ranks."""
    one_thread()
    device = own_device(backend, place.local_rank)
    dist.init_process_group(backend, timeout=timedelta(seconds=deadline))
    try:
        ranks = Ranks(
            rank=place.rank, size=place.world_size, device=device, say=_nothing, call=_nothing
        )
        for batch in _batches(track(cases, what="cases run") if place.rank == 0 else cases):
            verdicts = [run_case(ranks, case) for case in batch]
            gathered = [None] * place.world_size if place.rank == 0 else None
            dist.gather_object(verdicts, gathered)
            if gathered is not None:
                for case, answers in zip(batch, zip(*gathered, strict=True), strict=True):
                    yield Outcome.of(case, answers)
    finally:
        dist.destroy_process_group()


def _batches(cases: Iterable[Case]) -> Iterator[list[Case]]:
    batch: list[Case] = []
    for case in cases:
        batch.append(case)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _nothing(activity: str) -> None:
    del activity
