"""A block's answer: guards, as the rows in which it leaves its reductions out."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from helper import Path
from verify.logic import truth
from verify.logic.flags import flag_names, flag_of

Producer = Literal["one-site", "two-site", "dense"]
SharedRule = Literal["any", "none", "sharded for FI", "replicated for FI"]


@dataclass(frozen=True, kw_only=True)
class Guards:
    """A block's reductions and the rows (truth tables) in which it skips each, and its layer.

    `producer`: `one-site` reduces over the TP group, by `skip_tp`; `two-site` over EP by
    `skip_ep` and over MoE-TP by `skip_tp`; `dense` is a dense MLP ending in a row-parallel linear.
    In the rows `again_tp` and `again_ep` it reduces once more what it has reduced.
    `accepts` names the layer flags that forward() takes: a layer computes AF only for a block that
    takes it. The remaining fields say what the decoder layer does: whether its communicator may
    reduce-scatter (None: where the block can be told), whether it tags a fused tensor for the next
    layer, whether it knows that it is the last, whether its model completes a fused sum before a
    pipeline stage ends, how the block builds shared experts (`any`: all ways are judged), whether
    it adds them before its own reductions or after, whether it weighs what every expert-parallel
    rank has of them by its share, whether they are fused into the routed ones on ROCm only, the
    all-to-all backends with which these sites are reached, the one to show first, and whether the
    block can be where attention groups hold different tokens, and where an FP4 dispatcher sums.
    """

    producer: Producer
    skip_tp: int
    skip_ep: int = 0
    again_tp: int = 0
    again_ep: int = 0
    accepts: frozenset[str] = frozenset()
    allows_reduce_scatter: bool | None = None
    tags_fusion: bool = True
    knows_last_layer: bool = True
    completes_stage: bool = False
    shared_experts: SharedRule = "any"
    adds_shared: Literal["before", "after"] = "before"
    weighs_fused: bool = True
    fuses_on_rocm: bool = False
    reached_by: tuple[str, ...] = ()
    attention_dp: bool = True
    fp4_allgather: bool = True

    def skips(self, path: Path, row: int) -> bool:
        """Whether the reduction of `path` is left out in `row`."""
        return bool((self.skip_tp if path == "TP" else self.skip_ep) >> row & 1)

    def times(self, path: Path, row: int) -> int:
        """How often the reduction of `path` is made in `row`: two is once too often."""
        again = self.again_tp if path == "TP" else self.again_ep
        return 0 if self.skips(path, row) else 1 + (again >> row & 1)

    @property
    def may_reduce_scatter(self) -> bool:
        """Whether the layer's communicator may reduce-scatter what the block leaves."""
        if self.allows_reduce_scatter is None:
            return flag_of("reduce_scatter") in self.accepts
        return self.allows_reduce_scatter


class Answer(NamedTuple):
    """What a block leaves out."""

    skips_ep: bool
    skips_tp: bool

    @property
    def words(self) -> str:
        """`skip`, `reduce`, or which of the two it skips."""
        if self.skips_ep == self.skips_tp:
            return "skip" if self.skips_tp else "reduce"
        return "skip EP" if self.skips_ep else "skip TP"

    def with_skip(self, path: Path) -> "Answer":
        """The same answer with `path` left out."""
        return self._replace(skips_ep=True) if path == "EP" else self._replace(skips_tp=True)


# one answer for both halves first: where it is as good as another, it is the simpler one
ANSWERS = tuple(
    Answer(skips_ep=skips_ep, skips_tp=skips_tp)
    for same in (True, False)
    for skips_ep in (False, True)
    for skips_tp in (False, True)
    if (skips_ep == skips_tp) is same
)


def always(guards: Guards, answer: Answer) -> Guards:
    """The same block, giving one answer in every row."""
    full = truth.full(len(flag_names()))
    return replace(
        guards,
        skip_ep=full if answer.skips_ep and guards.producer == "two-site" else 0,
        skip_tp=full if answer.skips_tp else 0,
    )
