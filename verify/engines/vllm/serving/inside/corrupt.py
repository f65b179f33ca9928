"""Collectives of a forward pass by the place in the engine that asks for them, one at a time wrong.

Every collective of vLLM's groups ends in a method of its CPU communicator; what a pipeline stage
hands on goes through its group's `isend_tensor_dict`. A site is the first file and line outside of
the engine's own plumbing, with the module that runs. Only tensors of floating numbers count: what
ranks tell each other about sizes decides, and carries no value.

Runs inside the engine's Python (standard library, torch and vllm).
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from verify.engines.inside.changes import DOUBLED, DROPPED, NAN, Ranks, other_groups, place
from verify.engines.inside.modules import Running

# what passes a collective on for others; their callers are the places that matter
PLUMBING = ("distributed/",)

SUMS = ("all_reduce",)
SCATTERS = ("reduce_scatter", "reduce_scatterv")
GATHERS = ("all_gather", "all_gatherv")
HANDED_ON = "isend_tensor_dict"
# sizes of theirs say how many ranks there are
UNEVEN = ("reduce_scatterv", "all_gatherv")
ELSEWHERE = "over "

Site = tuple[str, str, str, int]
"""Place, module, function, ranks."""


@dataclass(kw_only=True)
class Collectives:
    """Counts sites while `active`; at `wrong` a collective does what `how` says instead.

    `root` is the folder of the engine's package.
    """

    running: Running
    root: Path
    active: bool = False
    wrong: Site | None = None
    how: str = ""
    elsewhere: Any = None
    seen: dict[Site, int] = field(default_factory=dict)
    ranks: dict[Site, Ranks] = field(default_factory=dict)
    struck: int = 0
    _inside: bool = False

    def install(self, communicator: Any, coordinator: Any) -> None:
        """Take the places of methods of `communicator` and of a group, `coordinator`; classes."""
        for name in (*SUMS, *SCATTERS, *GATHERS):
            setattr(communicator, name, self._standing_before(name, getattr(communicator, name)))

        hand_on = getattr(coordinator, HANDED_ON)

        def handed_on(group: Any, tensors: dict[str, Any], *rest: Any, **named: Any) -> Any:
            if self.active and self._met(HANDED_ON, group):
                factor = {DOUBLED: 2.0, DROPPED: 0.0, NAN: float("nan")}[self.how]
                tensors = {name: tensor * factor for name, tensor in tensors.items()}
            return hand_on(group, tensors, *rest, **named)

        setattr(coordinator, HANDED_ON, handed_on)

    def corrupt(self, site: Site | None, how: str = "", elsewhere: Any = None) -> None:
        """From now on `site` is wrong, for "over X" with X as `elsewhere`; None: all are right."""
        self.wrong, self.how, self.elsewhere, self.struck = site, how, elsewhere, 0

    def _met(self, name: str, group: Any) -> bool:
        """Count the site that asks now; whether it is the wrong one."""
        site = (place(self.root, PLUMBING), self.running.inner(), name, int(group.world_size))
        self.seen[site] = self.seen.get(site, 0) + 1
        self.ranks[site] = tuple(group.ranks)
        self.struck += site == self.wrong
        return site == self.wrong

    def _standing_before(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(original)

        def collective(group: Any, *positional: Any, **named: Any) -> Any:
            bound = signature.bind(group, *positional, **named)
            bound.apply_defaults()
            _, given, *rest = bound.args
            # a list comes back here tensor by tensor
            if not self.active or self._inside or isinstance(given, list | tuple):
                return original(*bound.args)
            # one of the methods may call another
            self._inside = True
            try:
                return self._meet(name, original, group, given, rest)
            finally:
                self._inside = False

        return collective

    def _meet(
        self, name: str, original: Callable[..., Any], group: Any, given: Any, rest: list[Any]
    ) -> Any:
        if not given.is_floating_point() or group.world_size == 1:
            return original(group, given, *rest)
        if not self._met(name, group):
            return original(group, given, *rest)
        if self.how.startswith(ELSEWHERE):
            return _over(self.elsewhere, name, original, given, rest)
        before = given.clone()
        result = original(group, given, *rest)
        if self.how == NAN:
            return result.fill_(float("nan"))
        if name in GATHERS:
            _spoil_gathered(result, before, self.how, group, rest)
        elif self.how == DOUBLED:
            # every rank sums once more what all have summed
            result.mul_(group.world_size)
        else:
            result.copy_(before if name in SUMS else _own_piece(before, result, group, rest))
        return result


def elsewhere(site: Site, own: Sequence[Ranks], groups: Mapping[str, Sequence[Ranks]]) -> list[str]:
    """The groups, by name, over which a site could be wrong: other ranks than its `own`.

    `own` and `groups` have each rank's ranks. A rank that never asks (no `own`) has nobody to be
    given to.
    """
    _, _, function, size = site
    if function in UNEVEN or function == HANDED_ON or () in own:
        return []
    return other_groups(own, groups, size=None if function in SUMS else size)


def _over(group: Any, name: str, original: Callable[..., Any], given: Any, rest: list[Any]) -> Any:
    """What `original` makes of the ranks of another group, which may have more or fewer rows."""
    rows = torch.tensor([given.shape[0]])
    dist.all_reduce(rows, dist.ReduceOp.MAX, group=group.cpu_group)
    padded = given.new_zeros((int(rows), *given.shape[1:]))
    padded[: given.shape[0]] = given
    result = original(group, padded, *rest)
    if name in GATHERS:
        parts = result.chunk(group.world_size, rest[0])
        return torch.cat([part[: given.shape[0]] for part in parts], rest[0])
    return result[: given.shape[0] // (group.world_size if name in SCATTERS else 1)]


def _own_piece(given: Any, result: Any, group: Any, rest: list[Any]) -> Any:
    """Of what is scattered, this rank's place in its own part of the sum."""
    dimension = rest[0] % given.dim()
    size = result.shape[dimension]
    sizes = rest[1] if len(rest) > 1 and rest[1] else [size] * group.world_size
    return given.narrow(dimension, sum(sizes[: group.rank_in_group]), size)


def _spoil_gathered(result: Any, given: Any, how: str, group: Any, rest: list[Any]) -> None:
    """Doubled: the first rank's part in the second's place too. Dropped: only one's own part."""
    dimension = rest[0] % given.dim()
    sizes = rest[1] if len(rest) > 1 and rest[1] else [given.shape[dimension]] * group.world_size
    parts = list(torch.split(result, sizes, dimension))
    if how == DROPPED:
        for rank, part in enumerate(parts):
            if rank != group.rank_in_group:
                part.zero_()
    else:
        size = min(sizes[:2])
        first = parts[0].narrow(dimension, 0, size).clone()
        parts[1].narrow(dimension, 0, size).copy_(first)
