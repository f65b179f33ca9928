"""From one pipeline stage to the next: tensors, by slices, and nothing that hangs on them.

The semantics of `GroupCoordinator.send_tensor_dict` with an `all_gather_group`, as schedulers call
it (0.5.11, its `distributed` folder): rank r of a stage sends the r-th slice of its own
tensor, and the next stage's ranks gather the slices.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from verify.emulator.ranks import Rank, current_rank


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """The stages of one run and what is under way between them; all ranks share it."""

    stages: int
    _sent: dict[int, Mapping[str, torch.Tensor | None]] = field(default_factory=dict)

    def is_last(self) -> bool:
        """Whether this rank's stage is the one that ends the forward pass."""
        rank = current_rank()
        return rank.rank >= rank.world_size - rank.world_size // self.stages

    def send(self, tensors: Mapping[str, torch.Tensor | None]) -> None:
        """Hand `tensors` to the rank with this rank's place in the next stage."""
        rank = current_rank()
        self._sent[rank.rank] = {
            name: None if t is None else t.clone() for name, t in tensors.items()
        }
        self._meet(rank, rank.rank)

    def receive(self) -> dict[str, torch.Tensor | None] | None:
        """What the stage before hands over; None on the first stage."""
        rank = current_rank()
        size = rank.world_size // self.stages
        if rank.rank < size:
            return None
        self._meet(rank, rank.rank - size)
        sent = self._sent.pop(rank.rank - size)
        return {name: self._gathered(rank, value) for name, value in sent.items()}

    def _meet(self, rank: Rank, sender: int) -> None:
        pair = (sender, sender + rank.world_size // self.stages)
        rank.broadcast(torch.zeros(1), source=0, group=pair)

    def _gathered(self, rank: Rank, value: torch.Tensor | None) -> torch.Tensor | None:
        size = rank.world_size // self.stages
        if value is None or value.numel() == 0 or value.numel() % size:
            return value
        first = rank.rank // size * size
        mine = value.reshape(size, -1)[rank.rank - first]
        stage = tuple(range(first, first + size))
        return rank.all_gather(mine, group=stage).reshape(value.shape)
