"""Who sums what, over which ranks, before and after one layer's block: decided once, for everyone.

A block that decides by its own list of names whether to sum, and a layer that decides by another
predicate whether to sum after it, drift apart. Here both read one frozen value: the block looks at
`Plan.block_sum` and at the placements of its parts, the layer at `Plan.consumer`. The predicate of
sgl-project/sglang#23748 answers only the first of these, and for a layer that is given.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from helper import reasons
from helper.config import MoeConfig
from helper.layer import Group, Layer, gathers, gathers_contexts
from helper.reasons import Path, SkipReason

Rows = Literal["all", "attention group", "own share"]
"""Whose tokens a rank's tensor holds: every attention group's, its own group's, its own part."""

Part = Literal["routed", "shared", "dense"]
"""What a block is made of: its experts and what is added to them, or one MLP."""

QUIET = ("nothing", "own rows", "gather shares")
"""What a layer can do after the block without summing; other steps are a skip reason's."""


class PlanError(ValueError):
    """A layer that no plan can make right; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How a part of the block is built: sharded over `over`, or whole on every rank (`none`).

    A sharded part's output is a partial sum over just that group.
    """

    over: Group


@dataclass(frozen=True, kw_only=True)
class Consumer:
    """What the layer owes after the block: `step`, which sums over `over`.

    A step that sums is the `step` of one of `helper.reasons.SKIP_REASONS`, the others are `QUIET`.
    Afterwards a rank holds its attention group's rows, whatever the block worked on. A `fused
    norm` whose kernel declines sums plainly over the same group before it norms. Raises
    `PlanError` for a step that no layer makes after a block (a dispatcher's combine is the block's
    own), for one that sums over nobody, and for one that cannot sum and is given a group.
    """

    step: str
    over: Group

    def __post_init__(self) -> None:
        summing = {reason.step for reason in reasons.SKIP_REASONS if reason.form != "dispatch"}
        if self.step not in QUIET and self.step not in summing:
            raise PlanError(f"{self.step!r} is no step of a layer after its block")
        if (self.step in QUIET) != (self.over == "none"):
            raise PlanError(f"a consumer cannot be {self.step!r} over {self.over!r}")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One layer's answer to every "who sums this?".

    `block_sum` is the group that the block sums its output over, `none` when it must not. `routed`
    says over which ranks the routed output is partial; `shared` and `dense` how those MLPs are
    built. A part that the block has not is None: a dense one has only the last, one of experts the
    first two. Everything sharded is added before the block's sum. `whole_on` says where a value
    that every rank computes whole (zero experts, a replicated MLP) is added: on `every rank`, after
    the block's sum, or on the `first rank` of the consumer's group, while that sum is still owed.
    `why` is the reason in one sentence.
    """

    rows: Rows
    block_sum: Group
    routed: Placement | None
    shared: Placement | None
    dense: Placement | None
    whole_on: Literal["every rank", "first rank"]
    consumer: Consumer
    why: str

    def over(self, part: Part) -> Group:
        """The ranks that `part` is sharded over. Raises `PlanError` where the block has none."""
        placement: Placement | None = getattr(self, part)
        if placement is None:
            raise PlanError(f"this block has no {part} part")
        return placement.over


@lru_cache(maxsize=4096)
def plan_layer(config: MoeConfig, layer: Layer) -> Plan:
    """The plan of one layer. Raises `PlanError` for a layer that nobody could complete.

    Placements depend on nothing that changes from one forward pass to the next: a weight that is
    loaded once serves every plan of its configuration.
    """
    _refuse(config, layer)
    if _on_own_rows(config, layer):
        return _own_rows_plan(config, layer)
    over = _partial_over(config, layer)
    rows: Rows = "all" if gathers(config, layer) else "attention group"
    completion = _completion(config, layer, over)
    if completion is None:
        consumer = Consumer(
            step="own rows" if _slices(config, layer) else "nothing",
            over="none",
        )
        why = _why_block_sums(config, layer, over)
    else:
        consumer = Consumer(step=completion.step, over=over)
        why = f"summed over {over} by {completion.completed_by}"
    if _split_less(config, layer):
        why += "; not sharded over tp: contexts differ in prefill, and weights are loaded once"
    return Plan(
        rows=rows,
        block_sum=over if completion is None else "none",
        **_parts(layer, over),
        whole_on="every rank" if completion is None else "first rank",
        consumer=consumer,
        why=why,
    )


def _parts(layer: Layer, over: Group) -> dict[Part, Placement | None]:
    """The parts of the layer's block, each sharded over `over`."""
    place, absent = Placement(over=over), None
    if layer.block == "dense":
        return {"routed": absent, "shared": absent, "dense": place}
    return {"routed": place, "shared": place, "dense": absent}


def _split_less(config: MoeConfig, layer: Layer) -> bool:
    """Whether weights are on more ranks than tokens alone would ask for in some pass."""
    return layer.block == "dense" and config.attn_cp_size > 1


def _completion(config: MoeConfig, layer: Layer, over: Group) -> SkipReason | None:
    """The first reason to leave the sum over `over` to a later step of the layer."""
    if over == "none":
        return None
    return next(
        (
            reason
            for reason in reasons.SKIP_REASONS
            if reason.over in ("partial", over)
            and _paths(config, layer, over) <= set(reason.paths)
            and _keeps_rows(config, layer, reason)
            and reason.completes(config, layer)
        ),
        None,
    )


def _paths(config: MoeConfig, layer: Layer, over: Group) -> set[Path]:
    """Which of a block's sums a sum over `over` stands for."""
    if over == "ep":
        return {"EP"}
    if layer.block == "experts" and config.ep_size > 1:
        return {"EP", "TP"}
    return {"TP"}


def _keeps_rows(config: MoeConfig, layer: Layer, reason: SkipReason) -> bool:
    """Whether a rank has its attention group's rows after the step, and no others."""
    if reason.form == "in place":
        return not gathers(config, layer)
    return reason.form == "scatter" and config.attn_dp_size > 1 and layer.may_scatter


def _dispatched(config: MoeConfig, layer: Layer) -> SkipReason | None:
    """The reason by which a dispatcher completes the sum inside the block."""
    return next(
        (
            reason
            for reason in reasons.SKIP_REASONS
            if reason.form == "dispatch" and reason.completes(config, layer)
        ),
        None,
    )


def _refuse(config: MoeConfig, layer: Layer) -> None:
    if layer.dense_on_own_rows and layer.block != "dense":
        raise PlanError("dense_on_own_rows is about a dense block, not about experts")
    if layer.block == "experts" and config.moe_a2a_backend == "customized":
        raise PlanError(
            "moe_a2a_backend='customized': whether a plug-in's combine sums is not known"
        )
    if layer.experts_everywhere:
        for name in ("ep_size", "attn_dp_size"):
            if getattr(config, name) != config.tp_size:
                raise PlanError(
                    f"experts_everywhere with {name}={getattr(config, name)}: "
                    f"the server sets it to tp_size={config.tp_size} then"
                )
    if config.attn_dp_size > 1 and config.attn_cp_size > 1:
        raise PlanError(
            "attention data and context parallelism together: which rows a rank has is not known"
        )


def _on_own_rows(config: MoeConfig, layer: Layer) -> bool:
    """Whether the block sees only its rank's own tokens."""
    if layer.block == "dense":
        return layer.dense_on_own_rows
    return (
        config.moe_a2a_backend != "none"
        or layer.experts_everywhere
        or _dispatched(config, layer) is not None
    )


def _own_rows_plan(config: MoeConfig, layer: Layer) -> Plan:
    """Nobody sums: a sum would run over ranks that hold other tokens."""
    gathers_shares = config.attn_tp_size > 1
    return Plan(
        rows="own share",
        block_sum="none",
        **_parts(layer, "none"),
        whole_on="every rank",
        consumer=Consumer(step="gather shares" if gathers_shares else "nothing", over="none"),
        why=_why_own_rows(config, layer),
    )


def _why_own_rows(config: MoeConfig, layer: Layer) -> str:
    if layer.block == "dense":
        return "a dense block on the rank's own tokens is whole on every rank: nothing is owed"
    if layer.experts_everywhere:
        return "every rank has every expert whole and works on its own tokens: nothing is owed"
    reason = _dispatched(config, layer)
    if reason is not None:
        return f"summed over {reason.over} by {reason.completed_by}"
    return "the dispatcher's combine has returned complete sums of the rank's own tokens"


def _partial_over(config: MoeConfig, layer: Layer) -> Group:
    """The smallest group whose ranks hold all different parts, and the same tokens."""
    if config.tp_size == 1:
        return "none"
    if _split_less(config, layer):
        # contexts differ in prefill and weights are loaded once: shard where tokens always agree
        return "attn_tp" if config.attn_tp_size > 1 else "none"
    if config.moe_dp_size == 1:
        return "tp"
    # several copies of the experts: where both could exceed 1, MoeConfig refuses
    if config.ep_size > 1:
        return "ep"
    return "moe_tp" if config.moe_tp_size > 1 else "none"


def _slices(config: MoeConfig, layer: Layer) -> bool:
    """Whether a rank's tensor holds more rows than its attention group has."""
    return config.attn_dp_size > 1 or (gathers_contexts(config, layer) and layer.contexts_differ)


def _why_block_sums(config: MoeConfig, layer: Layer, over: Group) -> str:
    if over == "none":
        return "no two ranks hold different parts of the same tokens: nothing is owed"
    if config.attn_dp_size > 1:
        return "attention groups bring different numbers of rows: the block sums before each copies"
    if gathers_contexts(config, layer):
        return "contexts are gathered for the experts: the block sums before each takes its own"
    if layer.next in ("stage end", "model end"):
        return f"nothing after the {layer.next.split()[0]}'s last layer sums: the block does"
    return "no later step sums: the block does"
