"""What `prove` is told of an engine: which steps its layers take, and what each of them does."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol, get_args

from helper import MoeConfig
from helper.predicates import uses_dp_reduce_scatterv
from verify.logic.flags import flag_of
from verify.parallel.counts import State
from verify.parallel.deployment import Deployment, Fusion, fusions_of
from verify.parallel.guards import Guards, Producer
from verify.parallel.row import mode_of
from verify.parallel.scene import Mode, Scene

Step = Callable[[Scene, State], State]
FusedGroup = Literal["ep-or-moe-tp", "tp"]
UnfusedGroup = Literal["moe_tp", "tp", "none"]
SummedGroup = Literal["ep", "moe_tp", "tp"]


class Answers(Protocol):
    """What a source answers its layers; `mode` are the tokens that the MLP is given."""

    def fuses(
        self, deployment: Deployment, mode: Mode, *, last: bool, scattered: bool = False
    ) -> bool:
        """Whether it leaves its sum to the next norm; `last`: it was told that there is none.

        `scattered`: a reduce-scatter follows.
        """

    def scatters(self, deployment: Deployment, mode: Mode, *, allowed: bool, by_size: bool) -> bool:
        """Whether its sum is made by a reduce-scatter, where the layer allows one."""


class FlagDefinitions(Protocol):
    """The flags as a source computes them from its configuration."""

    def text(self, flag: str) -> str | None:
        """The flag's expression; None where the source has no such flag."""

    def holds(self, flag: str, config: MoeConfig) -> bool:
        """The flag in `config`; False where the source has none. Ask `unknown` first."""

    def unknown(self, flag: str) -> str | None:
        """What the flag depends on that no configuration answers: the first such atom's text."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """What differs between releases in the steps around a block.

    `fused_group`: over which ranks the fused all-reduce + norm sums. `unfused_group`: over which
    the layer sums when the norm has no fused form (`none`: it always calls the fused form).
    `answers`: where a layer leaves its sum to the next norm or to a reduce-scatter, None: where
    `verify.parallel.row` says. `boundary`: over which group a stage's boundary sums; None where
    blocks and communicators do. `publishes`: it sums what it told the block to leave, else all.
    `definitions`: the flags as the source defines them, none where its communicator does not ask;
    None: as the helper does. `copies_experts` and `splits_contexts`: the server takes MoE data
    parallelism, and attention context parallelism.
    """

    name: str
    fused_group: FusedGroup = "ep-or-moe-tp"
    unfused_group: UnfusedGroup = "moe_tp"
    answers: Answers | None = None
    boundary: Callable[[MoeConfig], SummedGroup] | None = None
    publishes: bool = False
    definitions: FlagDefinitions | None = None
    copies_experts: bool = True
    splits_contexts: bool = True

    def takes(self, config: MoeConfig) -> bool:
        """Whether the server knows these sizes at all."""
        return (self.copies_experts or config.moe_dp_size == 1) and (
            self.splits_contexts or config.attn_cp_size == 1
        )

    def fusions(self, config: MoeConfig) -> tuple[Fusion, ...] | None:
        """The fused sums that some layer of a server leaves; None where the source was not read."""
        if self.answers is None:
            return None
        if self.publishes:
            # a sum is left to the next layer whatever kernel there is
            return ("off",)
        kinds = (
            replace(Deployment(config=config), fusion=kind, dense_fully_dp=whole)
            for kind in fusions_of(config)
            # where nothing stands in for it, the fused form is always called
            if kind != "no-fused-norm" or self.unfused_group != "none"
            for whole in (False, True)
        )
        found = {
            each.fusion
            for each in kinds
            for dense in (False, True)
            if self.answers.fuses(each, mode_of(each, dense=dense), last=False)
        }
        return tuple(kind for kind in get_args(Fusion) if kind == "off" or kind in found)

    def sums_by_scatterv(self, config: MoeConfig) -> bool:
        """Whether attention groups are handed their rows by a sum of their own sizes."""
        if self.definitions is None:
            return uses_dp_reduce_scatterv(config)
        return self.definitions.holds(flag_of("reduce_scatterv"), config)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The row that a layer is in and its steps before and after the block's own reductions.

    `reader` is who is left to complete the sum, or why nobody is. `last` are steps that the block
    takes after its reductions.
    """

    row: int
    mode: Mode
    reader: str
    before: tuple[str, ...]
    last: tuple[str, ...]
    after: tuple[str, ...]

    def steps(self, sites: tuple[str, ...]) -> tuple[str, ...]:
        """All steps, given the block's own reductions."""
        return self.before + sites + self.last + self.after


@dataclass(frozen=True, kw_only=True)
class LayerTraits:
    """What of a subject decides the steps around its sites."""

    producer: Producer
    hears_fusion: bool
    may_reduce_scatter: bool
    tags_fusion: bool
    knows_last_layer: bool
    completes_stage: bool
    adds_shared: Literal["before", "after"]
    weighs_fused: bool = True

    @classmethod
    def of(cls, guards: Guards) -> "LayerTraits":
        """The traits of a block with these guards."""
        return cls(
            producer=guards.producer,
            hears_fusion=flag_of("fused norm") in guards.accepts,
            may_reduce_scatter=guards.may_reduce_scatter,
            tags_fusion=guards.tags_fusion,
            knows_last_layer=guards.knows_last_layer,
            completes_stage=guards.completes_stage,
            adds_shared=guards.adds_shared,
            weighs_fused=guards.weighs_fused,
        )


class Reader(NamedTuple):
    """Who is left to complete the sum, in words, and the repair where it does not."""

    said: str
    repair: str


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The steps of an engine's layers.

    `release` is the one that is judged without a source. `plan(deployment, traits, release)` gives
    the steps around a block, `sites(deployment, guards, row)` the block's own, and
    `applies(deployment, guards)` whether a block with these guards can be there at all; `steps`
    says what each step does. `readers` are by the name in `Plan.reader`, `scatters` the steps by
    flag that sum and hand each group its rows, `own_rows` the one that only hands them.
    `definitions(texts)` are flags from their functions' expressions.
    """

    release: Release
    steps: Mapping[str, Step]
    plan: Callable[[Deployment, LayerTraits, Release], Plan]
    sites: Callable[[Deployment, Guards, int], tuple[str, ...]]
    applies: Callable[[Deployment, Guards], bool]
    readers: Mapping[str, Reader]
    scatters: Mapping[str, str]
    own_rows: str
    definitions: Callable[[Mapping[str, str]], FlagDefinitions]
