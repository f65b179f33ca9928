"""Who sums what, over which ranks, before and after one layer's block: decided once, for everyone.

A block that decides by its own list of names whether to sum, and a layer that decides by another
predicate whether to sum after it, drift apart. Here both read one frozen value: the block looks at
`Plan.block_sum` and at the placements of its parts, the layer at `Plan.consumer`. The predicate of
sgl-project/sglang#23748 answers only the first of these, and for a layer that is given.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from helper.config import MoeConfig
from helper.predicates import uses_flashinfer_fp4_allgather

Group = Literal["none", "tp", "ep", "moe_tp", "attn_tp"]
"""Ranks that sum together, by the names of an engine's process groups; `none`: nobody sums."""

Block = Literal["experts", "dense"]
Next = Literal["norm", "fused norm", "stage end", "model end"]
"""What reads the output: a norm; one that can all-reduce first; another stage; the final norm."""

Rows = Literal["all", "attention group", "own share"]
"""Whose tokens a rank's tensor holds: every attention group's, its own group's, its own part."""

Step = Literal[
    "nothing", "fused norm", "reduce_scatter", "reduce_scatterv", "own rows", "gather shares"
]

SUMMING: tuple[Step, ...] = ("fused norm", "reduce_scatter", "reduce_scatterv")


class PlanError(ValueError):
    """A layer that no plan can make right; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What one layer does around its block in one forward pass.

    `next` reads the layer's output. `equal_rows`: attention groups are padded to equal numbers of
    rows (MAX_LEN). `contexts_differ`: context-parallel ranks hold different tokens (prefill).
    `may_scatter`: the layer after the block can hand rows back by a reduce-scatter.
    `dense_on_own_rows`: a dense block runs on the rank's own tokens (`moe_dense_tp_size=1`).
    `experts_everywhere`: every rank has every expert's whole weights at hand (`dwdp_size`).
    """

    block: Block = "experts"
    next: Next = "norm"
    equal_rows: bool = False
    contexts_differ: bool = False
    may_scatter: bool = True
    dense_on_own_rows: bool = False
    experts_everywhere: bool = False


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How a part of the block is built: sharded over `over`, or whole on every rank (`none`).

    A sharded part's output is a partial sum over just that group.
    """

    over: Group

    @property
    def replicated(self) -> bool:
        """Whether every rank holds the part whole."""
        return self.over == "none"


@dataclass(frozen=True, kw_only=True)
class Consumer:
    """What the layer owes after the block: `step`, which sums over `over`.

    Afterwards a rank holds its attention group's rows, whatever the block worked on. A `fused
    norm` whose kernel declines sums plainly over the same group before it norms. Raises
    `PlanError` for a step that sums over nobody, or one that cannot sum and is given a group.
    """

    step: Step
    over: Group

    def __post_init__(self) -> None:
        if (self.step in SUMMING) != (self.over != "none"):
            raise PlanError(f"a consumer cannot be {self.step!r} over {self.over!r}")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One layer's answer to every "who sums this?".

    `block_sum` is the group that the block sums its output over, `none` when it must not. `routed`
    says over which ranks the routed output is partial; `shared` and `dense` how those MLPs are
    built. Everything sharded is added before the block's sum. `whole_on` says where a value that
    every rank computes whole (zero experts, a replicated MLP) is added: on `every rank`, after the
    block's sum, or on the `first rank` of the consumer's group, while that sum is still owed. `why`
    is the reason in one sentence.
    """

    rows: Rows
    block_sum: Group
    routed: Placement
    shared: Placement
    dense: Placement
    whole_on: Literal["every rank", "first rank"]
    consumer: Consumer
    why: str


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A later step that completes the block's sum, so that the block must not.

    `flag` is the row's name for it, `applies` tells from the configuration, the layer and the
    group that the block is partial over whether the step can and will sum just that. The first
    entry of `COMPLETIONS` that applies is the plan's.
    """

    flag: str
    step: Step
    why: str
    applies: Callable[[MoeConfig, Layer, Group], bool]


COMPLETIONS: tuple[Completion, ...] = (
    Completion(
        flag="RS",
        step="reduce_scatter",
        why="rows are padded to equal lengths: one reduce-scatter sums and hands them back",
        applies=lambda config, layer, over: (
            over == "tp" and config.attn_dp_size > 1 and layer.may_scatter and layer.equal_rows
        ),
    ),
    Completion(
        flag="DP",
        step="reduce_scatterv",
        why="each rank is an attention group: a reduce_scatterv hands every one its own rows",
        applies=lambda config, layer, over: (
            over == "tp"
            and config.attn_dp_size > 1
            and config.attn_tp_size == 1
            and layer.may_scatter
        ),
    ),
    Completion(
        flag="AF",
        step="fused norm",
        why="the next layer's norm sums over the group that the output is partial over",
        applies=lambda config, layer, over: (
            over != "none"
            and layer.next == "fused norm"
            and config.attn_dp_size == 1
            and not _gathers_contexts(config, layer)
        ),
    ),
)


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
    rows: Rows = "all" if _gathers(config, layer) else "attention group"
    completion = next((c for c in COMPLETIONS if c.applies(config, layer, over)), None)
    if completion is None:
        consumer = Consumer(
            step="own rows" if _slices(config, layer) else "nothing",
            over="none",
        )
        why = _why_block_sums(config, layer, over)
    else:
        consumer = Consumer(step=completion.step, over=over)
        why = completion.why
    return Plan(
        rows=rows,
        block_sum=over if completion is None else "none",
        routed=Placement(over=over),
        shared=Placement(over=over),
        dense=Placement(over=over),
        whole_on="every rank" if completion is None else "first rank",
        consumer=consumer,
        why=why,
    )


def _refuse(config: MoeConfig, layer: Layer) -> None:
    if layer.dense_on_own_rows and layer.block != "dense":
        raise PlanError("dense_on_own_rows is about a dense block, not about experts")
    if layer.experts_everywhere and config.ep_size > 1:
        raise PlanError(f"ep_size={config.ep_size}: experts cannot be both shared out and whole")
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
        or uses_flashinfer_fp4_allgather(config)
        or layer.experts_everywhere
    )


def _own_rows_plan(config: MoeConfig, layer: Layer) -> Plan:
    """Nobody sums: a sum would run over ranks that hold other tokens."""
    if layer.block == "dense":
        why = "a dense block on the rank's own tokens is whole on every rank: nothing is owed"
    elif layer.experts_everywhere:
        why = "every rank has every expert whole and works on its own tokens: nothing is owed"
    else:
        why = "the dispatcher's combine has returned complete sums of the rank's own tokens"
    whole = Placement(over="none")
    gathers = config.attn_tp_size > 1
    return Plan(
        rows="own share",
        block_sum="none",
        routed=whole,
        shared=whole,
        dense=whole,
        whole_on="every rank",
        consumer=Consumer(step="gather shares" if gathers else "nothing", over="none"),
        why=why,
    )


def _partial_over(config: MoeConfig, layer: Layer) -> Group:
    """The smallest group whose ranks hold all different parts, and the same tokens."""
    if config.tp_size == 1:
        return "none"
    if layer.block == "dense" and config.attn_cp_size > 1:
        # contexts differ in prefill and weights are loaded once: shard where tokens always agree
        return "attn_tp" if config.attn_tp_size > 1 else "none"
    if layer.block == "dense" or config.moe_dp_size == 1:
        return "tp"
    # several copies of the experts: where both could exceed 1, MoeConfig refuses
    if config.ep_size > 1:
        return "ep"
    return "moe_tp" if config.moe_tp_size > 1 else "none"


def _gathers(config: MoeConfig, layer: Layer) -> bool:
    return config.attn_dp_size > 1 or _gathers_contexts(config, layer)


def _gathers_contexts(config: MoeConfig, layer: Layer) -> bool:
    """Whether context-parallel ranks share their tokens before the experts run."""
    return layer.block == "experts" and config.attn_cp_size > config.moe_dp_size


def _slices(config: MoeConfig, layer: Layer) -> bool:
    """Whether a rank's tensor holds more rows than its attention group has."""
    return config.attn_dp_size > 1 or (_gathers_contexts(config, layer) and layer.contexts_differ)


def _why_block_sums(config: MoeConfig, layer: Layer, over: Group) -> str:
    if over == "none":
        return "no two ranks hold different parts of the same tokens: nothing is owed"
    if config.attn_dp_size > 1:
        return "attention groups bring different numbers of rows: the block sums before each copies"
    if _gathers_contexts(config, layer):
        return "contexts are gathered for the experts: the block sums before each takes its own"
    if layer.next in ("stage end", "model end"):
        return f"nothing after the {layer.next.split()[0]}'s last layer sums: the block does"
    return "no later step sums: the block does"
