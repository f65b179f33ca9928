"""What an engine reads from its source for the checks, in the words that every check shares."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from verify.interpreter.values import Axis, Place
from verify.logic.diagrams import TRUE, Cond

# what a layer's FFN is declared as
Stage = Literal["sparse", "dense"]


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """When a step sums over an axis; `whole` is the whole tensor-parallel group."""

    axes: Mapping[Axis, Cond] = field(default_factory=dict)
    whole: Cond = TRUE

    def over(self, axis: Axis | None) -> Cond:
        """When it sums over the axis; None is the copies of the experts."""
        return self.whole if axis is None else self.axes.get(axis, TRUE)


@dataclass(frozen=True, kw_only=True)
class ReductionGroups:
    """What a source sums over; None where it does not pick a group.

    `fused`: the next layer's fused norm, called at `fused_at`; `declined`: what is summed over at
    `declined_at` where its kernel declines; `fuses_at`: where a layer decides to leave it the sum;
    `moe_output`: the stage boundary after a sparse layer; `copies`: whether there may be several
    copies of the experts at all.
    """

    fused: Coverage | None = None
    fused_at: Place | None = None
    declined: Coverage | None = None
    declined_at: Place | None = None
    fuses_at: Place | None = None
    moe_output: Coverage | None = None
    copies: bool = False


@dataclass(frozen=True, kw_only=True)
class ContextRows:
    """When an MLP is left with rows that only its rank of a context group has.

    `environment` is what is asked of the environment before a prompt's tokens are split at all.
    """

    left: Cond
    environment: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LocalRows:
    """When a sparse and a dense FFN run on rank-local rows; None where the source does not say."""

    sparse: Cond | None = None
    dense: Cond | None = None
