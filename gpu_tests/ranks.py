"""One rank's view of the world: its groups and the collectives over them.

A group is a tuple of global ranks. Process groups are made once per tuple and kept; every rank
makes them in the same order, as torch.distributed requires.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

Group = tuple[int, ...]

# torch 2.13 renamed both and warns at every call of the old name; 2.11 has only the old ones
all_gather_into = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
reduce_scatter_into = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)


class StepError(Exception):
    """A step no server could carry out, found alike on every rank: shapes that do not fit."""


@dataclass(kw_only=True, eq=False)
class Ranks:
    """Collectives for `rank` of `size`; `say` is told what is about to happen, `call` which
    collective, for fault messages.

    Collectives over one rank return at once. Raises `StepError` where the ranks' shapes, known
    to all of them, do not fit; everything else that goes wrong is torch.distributed's error.
    """

    rank: int
    size: int
    device: torch.device
    say: Callable[[str], None]
    call: Callable[[str], None]
    _groups: dict[Group, dist.ProcessGroup] = field(default_factory=dict)

    def open_groups(self, groups: Iterable[Group]) -> None:
        """Make the process groups that do not exist yet. Every rank passes the same groups."""
        for group in groups:
            if 1 < len(group) < self.size and group not in self._groups:
                self.say(f"opening the group of ranks {_spell(group)}")
                self._groups[group] = dist.new_group(list(group))

    def all_reduce(self, tensor: Tensor, group: Group) -> Tensor:
        """The sum over the group, same shape; the argument is overwritten."""
        if len(group) > 1:
            self._announce("all-reduce", tensor, group)
            dist.all_reduce(tensor, group=self.handle(group))
        return tensor

    def all_gather(self, tensor: Tensor, group: Group, rows: Sequence[int]) -> Tensor:
        """Every rank's rows, in group order; `rows` says how many each member has."""
        if len(group) == 1:
            return tensor
        if len(set(rows)) == 1:
            self._announce("all-gather", tensor, group)
            whole = tensor.new_empty(sum(rows), *tensor.shape[1:])
            all_gather_into(whole, tensor, group=self.handle(group))
            return whole
        # neither gloo nor NCCL gathers uneven rows in one call: pad to the longest, then cut
        longest = max(rows)
        self.call(f"all-gather of {list(rows)} rows over ranks {_spell(group)}")
        padded = tensor.new_zeros(longest, *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        whole = tensor.new_empty(longest * len(group), *tensor.shape[1:])
        all_gather_into(whole, padded, group=self.handle(group))
        parts = torch.split(whole, longest)
        return torch.cat([part[:count] for part, count in zip(parts, rows, strict=True)])

    def reduce_scatter(self, tensor: Tensor, group: Group, rows: Sequence[int]) -> Tensor:
        """This rank's rows of the sum over the group; `rows` says how many each member gets."""
        if len(rows) != len(group):
            raise StepError(f"reduce-scatter of {len(rows)} sizes over {len(group)} ranks")
        if sum(rows) != len(tensor):
            raise StepError(f"reduce-scatter of {len(tensor)} rows into sizes {list(rows)}")
        if len(group) == 1:
            return tensor
        self._announce("reduce-scatter", tensor, group)
        mine = tensor.new_empty(rows[group.index(self.rank)], *tensor.shape[1:])
        if len(set(rows)) == 1:
            reduce_scatter_into(mine, tensor, group=self.handle(group))
        else:
            parts = [part.contiguous() for part in torch.split(tensor, list(rows))]
            dist.reduce_scatter(mine, parts, group=self.handle(group))
        return mine

    def all_to_all(
        self, tensor: Tensor, group: Group, *, to: Sequence[int], of: Sequence[int]
    ) -> Tensor:
        """The rows that the members have for this rank, in group order.

        `to` says how many of this rank's rows go to each member, in order, `of` how many come.
        """
        if len(group) == 1:
            return tensor
        # the numbers differ from rank to rank as they should: a message has no use for them
        self.call(f"all-to-all of rows of {list(tensor.shape[1:])} over ranks {_spell(group)}")
        received = tensor.new_empty(sum(of), *tensor.shape[1:])
        dist.all_to_all_single(
            received, tensor.contiguous(), list(of), list(to), group=self.handle(group)
        )
        return received

    def tell(self, numbers: Sequence[int], group: Group) -> list[int]:
        """What every member has for this rank, in group order: one number goes to each."""
        ones = [1] * len(group)
        own = torch.tensor(numbers, device=self.device)
        told: list[int] = self.all_to_all(own, group, to=ones, of=ones).tolist()
        return told

    def each(self, number: int, group: Group) -> list[int]:
        """Every member's `number`, in group order: what ranks tell each other about their rows."""
        own = torch.tensor([number], device=self.device)
        told: list[int] = self.all_gather(own, group, [1] * len(group)).tolist()
        return told

    def handle(self, group: Group) -> dist.ProcessGroup | None:
        """The opened process group of these ranks; None for all of them."""
        return None if len(group) == self.size else self._groups[group]

    def _announce(self, what: str, tensor: Tensor, group: Group) -> None:
        self.call(f"{what} of {list(tensor.shape)} over ranks {_spell(group)}")


def group_of(groups: Iterable[Group], rank: int) -> Group:
    """The one group of `groups` that `rank` belongs to."""
    return next(group for group in groups if rank in group)


def _spell(group: Group) -> str:
    return ",".join(map(str, group))
