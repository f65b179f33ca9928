"""The same collectives as a case's, without the layer around them. Run in rank processes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gpu_tests.cases import Case
from gpu_tests.ranks import Group, Ranks
from gpu_tests.work import every_group, run_case

Call = tuple[str, tuple[int, ...], torch.dtype, Group, tuple[int, ...]]


class Recorder(Ranks):
    """Ranks that also write down what they are asked for."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(**vars(ranks))
        self.calls: list[Call] = []

    def all_reduce(self, tensor: Tensor, group: Group) -> Tensor:
        self._note("all_reduce", tensor, group, ())
        return super().all_reduce(tensor, group)

    def all_gather(self, tensor: Tensor, group: Group, rows: Sequence[int]) -> Tensor:
        self._note("all_gather", tensor, group, rows)
        return super().all_gather(tensor, group, rows)

    def reduce_scatter(self, tensor: Tensor, group: Group, rows: Sequence[int]) -> Tensor:
        if len(rows) == len(group):
            self._note("reduce_scatter", tensor, group, rows)
        return super().reduce_scatter(tensor, group, rows)

    def all_to_all(
        self, tensor: Tensor, group: Group, *, to: Sequence[int], of: Sequence[int]
    ) -> Tensor:
        # the two kinds of sizes side by side: replayed as they were
        self._note("all_to_all", tensor, group, (*to, *of))
        return super().all_to_all(tensor, group, to=to, of=of)

    def _note(self, what: str, tensor: Tensor, group: Group, rows: Sequence[int]) -> None:
        if len(group) > 1:
            self.calls.append((what, tuple(tensor.shape), tensor.dtype, group, tuple(rows)))


def record(ranks: Ranks, case: Case) -> list[Call]:
    """The collectives of one case on this rank."""
    recorder = Recorder(ranks)
    run_case(recorder, case)
    return recorder.calls


def replay(ranks: Ranks, item: tuple[Case, list[list[Call]]]) -> None:
    """The collectives alone; the item holds every rank's."""
    case, calls = item
    ranks.open_groups(every_group(case.deployment.layout))
    for what, shape, dtype, group, rows in calls[ranks.rank]:
        tensor = torch.zeros(shape, dtype=dtype)
        if what == "all_to_all":
            ranks.all_to_all(tensor, group, to=rows[: len(group)], of=rows[len(group) :])
        else:
            extra: tuple[Any, ...] = (rows,) if rows else ()
            getattr(ranks, what)(tensor, group, *extra)
