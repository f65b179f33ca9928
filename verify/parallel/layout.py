"""Which ranks form which group, exactly as upstream builds them.

Release 0.5.11, `initialize_model_parallel`: the MoE rank index
is (moe_dp, ep, moe_tp) and the attention index (attn_dp, attn_cp, attn_tp), the last fastest.
"""

from dataclasses import dataclass
from functools import cached_property

from helper import MoeConfig

Group = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """The groups of one configuration; ranks are 0 .. world_size - 1, each in one group a kind."""

    config: MoeConfig

    @property
    def world_size(self) -> int:
        """Ranks in the tensor-parallel world."""
        return self.config.tp_size

    @cached_property
    def tp(self) -> tuple[Group, ...]:
        """The one group of all ranks."""
        return (tuple(range(self.world_size)),)

    @cached_property
    def ep(self) -> tuple[Group, ...]:
        """Ranks that hold different experts of one model copy: every moe_tp-th."""
        block = self.config.ep_size * self.config.moe_tp_size
        return tuple(
            tuple(range(start + tp, start + block, self.config.moe_tp_size))
            for start in range(0, self.world_size, block)
            for tp in range(self.config.moe_tp_size)
        )

    @cached_property
    def moe_tp(self) -> tuple[Group, ...]:
        """Consecutive ranks that share the same experts' intermediate dimension."""
        return _consecutive(self.world_size, self.config.moe_tp_size)

    @cached_property
    def moe_dp(self) -> tuple[Group, ...]:
        """Ranks that hold the same weights in different model copies.

        With more context-parallel ranks than copies it is the context-parallel group, whose ranks
        share their tokens before the experts run.
        """
        if self.config.attn_cp_size > self.config.moe_dp_size:
            return self.attn_cp
        stride = self.config.ep_size * self.config.moe_tp_size
        return tuple(tuple(range(first, self.world_size, stride)) for first in range(stride))

    @cached_property
    def attn_tp(self) -> tuple[Group, ...]:
        """Consecutive ranks that share one attention group's heads."""
        return _consecutive(self.world_size, self.config.attn_tp_size)

    @cached_property
    def attn_cp(self) -> tuple[Group, ...]:
        """Ranks that hold different parts of one attention group's sequences."""
        block = self.config.attn_tp_size * self.config.attn_cp_size
        return tuple(
            tuple(range(start + tp, start + block, self.config.attn_tp_size))
            for start in range(0, self.world_size, block)
            for tp in range(self.config.attn_tp_size)
        )

    def attn_dp_rank(self, rank: int) -> int:
        """Which attention data-parallel group `rank` belongs to."""
        return rank // (self.config.attn_tp_size * self.config.attn_cp_size)


def _consecutive(world_size: int, size: int) -> tuple[Group, ...]:
    return tuple(tuple(range(start, start + size)) for start in range(0, world_size, size))
