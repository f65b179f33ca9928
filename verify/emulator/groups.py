"""The release's process groups on in-process ranks: its own rank lists, our collectives."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

from verify.emulator.ranks import current_rank


class ProcessGroup:
    """What stands for a torch process group: only its ranks."""

    def __init__(self, ranks: Sequence[int], rank: int) -> None:
        self.ranks = tuple(ranks)
        self._rank = rank

    def rank(self) -> int:
        """The caller's place in the group."""
        return self.ranks.index(self._rank)

    def size(self) -> int:
        """Ranks in the group."""
        return len(self.ranks)


class GroupCoordinator:
    """Takes the place of the release's; semantics of release 0.5.11's own groups."""

    def __init__(self, group_ranks: Sequence[Sequence[int]], *args: Any, **kwargs: Any) -> None:
        rank = current_rank()
        self.ranks = tuple(next(ranks for ranks in group_ranks if rank.rank in ranks))
        self.rank = self.local_rank = rank.rank
        self.rank_in_group = self.ranks.index(rank.rank)
        self.world_size = len(self.ranks)
        self.unique_name = str(kwargs.get("group_name", ""))
        self.cpu_group = self.device_group = ProcessGroup(self.ranks, rank.rank)
        self.device = torch.device("cpu")
        self.is_first_rank = self.rank_in_group == 0
        self.is_last_rank = self.rank_in_group == self.world_size - 1
        self.first_rank, self.last_rank = self.ranks[0], self.ranks[-1]
        self.pynccl_comm = self.ca_comm = SimpleNamespace(disabled=True)
        self.pymscclpp_comm = self.torch_symm_mem_comm = None

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        """The sum over the group."""
        if self.world_size == 1:
            return input_
        return current_rank().all_reduce(input_, group=self.ranks)

    quant_all_reduce = all_reduce

    def fused_allreduce_rmsnorm(self, *args: Any) -> None:
        """No fused kernel: the caller's own fallback runs."""

    def reduce_scatter_tensor(self, output: torch.Tensor, input: torch.Tensor) -> None:
        """Write this rank's even share of the sum into `output`."""
        output.copy_(current_rank().reduce_scatter(input, group=self.ranks))

    def reduce_scatter(
        self, output: torch.Tensor, input_list: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """The same, from a list of shares."""
        return output.copy_(
            current_rank().reduce_scatter(torch.cat(list(input_list)), group=self.ranks)
        )

    def reduce_scatterv(
        self,
        input_: torch.Tensor,
        output: torch.Tensor | None = None,
        sizes: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """This rank's share of the sum; `sizes` are tokens a rank."""
        if sizes is None:
            share = current_rank().reduce_scatter(input_, group=self.ranks)
        else:
            share = current_rank().reduce_scatterv(input_, sizes=sizes, group=self.ranks)
        return share if output is None else output.copy_(share)

    def all_gather_into_tensor(self, output: torch.Tensor, input: torch.Tensor) -> None:
        """Write everybody's tensors, one below the other, into `output`."""
        output.copy_(current_rank().all_gather(input, group=self.ranks))

    cp_all_gather_into_tensor_async = all_gather_into_tensor

    def all_gather(
        self,
        input_: torch.Tensor,
        dim: int = -1,
        output_tensor_list: list[torch.Tensor] | None = None,
    ) -> torch.Tensor | None:
        """Everybody's tensors along `dim`, or into a list."""
        parts = current_rank().all_gather(input_.unsqueeze(0), group=self.ranks)
        if output_tensor_list is not None:
            for output, part in zip(output_tensor_list, parts, strict=True):
                output.copy_(part)
            return None
        return torch.cat(list(parts), dim=dim)

    def all_gatherv(
        self, input_: torch.Tensor | list[torch.Tensor], sizes: Sequence[int] | None = None
    ) -> torch.Tensor | list[torch.Tensor]:
        """Everybody's tensors, of `sizes` tokens each; of a list, tensor by tensor."""
        if isinstance(input_, list):
            return [self.all_gatherv(one, sizes) for one in input_]  # type: ignore[misc]
        if sizes is None:
            return current_rank().all_gather(input_, group=self.ranks)
        return current_rank().all_gatherv(input_, sizes=sizes, group=self.ranks)

    def broadcast(self, input_: torch.Tensor, src: int = 0) -> torch.Tensor:
        """The tensor of the group's `src`-th rank."""
        return current_rank().broadcast(input_, source=src, group=self.ranks)

    def barrier(self) -> None:
        """Wait for the group."""
        current_rank().all_reduce(torch.zeros(1), group=self.ranks)
