"""Cases of layers that follow the helper's plan: what is built, and who sums, is what it says."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace

from gpu_tests.block import Shard
from gpu_tests.blocks import DENSE, subjects
from gpu_tests.cases import Case, Dtype, Kernels, Producer
from gpu_tests.ranks import Group, group_of
from gpu_tests.specs import SPECS
from gpu_tests.tokens import token_plan
from helper import Layer, Plan, plan_layer
from helper.layer import Block, Next
from helper.layer import Group as GroupName
from verify.checks.prove.planned import ADDENDS, Addend, layers_of
from verify.parallel.deployment import Deployment, Shared, deployments
from verify.parallel.scene import Mode

PLAN = "plan"


@dataclass(frozen=True, kw_only=True)
class PlannedCase(Case):
    """`plan` is the helper's for `layer`; `addend` is what the block adds to routed experts.

    Shared experts are built as the plan says (`shared`), or whole on every rank and added where it
    says that such a value is (`whole`).
    """

    layer: Layer
    plan: Plan
    addend: Addend

    @property
    def producer(self) -> Producer:
        """What computes the partial sums; behind `dwdp_size`, experts fetched from other ranks."""
        return "fetched experts" if self.layer.experts_everywhere else super().producer

    @property
    def mode(self) -> Mode:
        """The communicator's word for the plan's `rows`."""
        if self.plan.rows == "own share":
            return "scattered"
        gathered = self.plan.rows == "all" and self.deployment.config.attn_cp_size > 1
        return "moe_full" if gathered else "full"

    @property
    def flags(self) -> dict[str, bool]:
        """The row: which step completes the sum."""
        step = self.plan.consumer.step
        return {
            "AF": step == "fused norm",
            "RS": step == "reduce_scatter",
            "DP": step == "reduce_scatterv",
            "FI": self.producer == "FP4 all-gather",
        }

    @property
    def communication(self) -> Hashable:
        """Equal for cases of one subject that move and add the same rows between the same ranks."""
        config = self.deployment.config
        return (
            (config.tp_size, config.ep_size, config.moe_dp_size),
            (config.attn_dp_size, config.attn_cp_size, self.deployment.context_parallel_extend),
            (self.producer, self.addend, replace(self.plan, why="")),
            (token_plan(self.deployment), self.deployment.padding),
            # a kernel that declines sums plainly, and is another way through the norm
            self.flags["AF"] and self.deployment.fusion.endswith("declined"),
        )

    @property
    def alike(self) -> Hashable:
        """Equal for cases that ranks cannot tell apart: built and placed the same, by one plan."""
        built = (self.spec, self.dtype, self.kernels, self.deployment, self.dense)
        return (*built, self.layer, self.plan, self.addend)

    @property
    def title(self) -> str:
        """For messages: as another case's, and what is added."""
        return f"{super().title} plan {self.addend}"

    def followed_by(self, what: Next) -> "PlannedCase":
        """The same layer with another reader, by the plan for that."""
        layer = replace(self.layer, next=what)
        return replace(self, layer=layer, plan=plan_layer(self.deployment.config, layer))

    def groups(self, name: GroupName) -> tuple[Group, ...]:
        """The ranks that sum together over `name`; `none`: everyone alone."""
        if name == "none":
            return tuple((rank,) for rank in range(self.deployment.config.tp_size))
        groups: tuple[Group, ...] = getattr(self.deployment.layout, name)
        return groups


def planned_cases(
    *, world_size: int, dtypes: tuple[Dtype, ...], kernels: Kernels, models: tuple[str, ...] = ()
) -> Iterator[PlannedCase]:
    """Every case on `world_size` ranks; of those that a block cannot tell apart, the first."""
    for dtype in dtypes:
        for subject in subjects(models):
            first: dict[Hashable, PlannedCase] = {}
            for deployment, layer in _layers(subject, world_size):
                plan = plan_layer(deployment.config, layer)
                for addend in _addends(subject):
                    case = PlannedCase(
                        subject=subject,
                        deployment=replace(deployment, shared=_shared(plan, addend)),
                        guard=PLAN,
                        dtype=dtype,
                        kernels=kernels.taking(dtype),
                        layer=layer,
                        plan=plan,
                        addend=addend,
                    )
                    first.setdefault(case.communication, case)
            yield from first.values()


def planned_shards(case: PlannedCase) -> tuple[Shard, ...]:
    """Every rank's shard, by the plan's placements."""
    plan, layout = case.plan, case.deployment.layout
    ranks = range(layout.world_size)
    if case.dense:
        places = [_place(case, plan.over("dense"), rank) for rank in ranks]
        return tuple(Shard(tp_rank=place, tp_size=size) for place, size in places)
    shards = []
    for rank in ranks:
        place, size = _place(case, "none" if case.addend == "whole" else plan.over("shared"), rank)
        shard = Shard(shared_rank=place, shared_size=size)
        if not case.layer.experts_everywhere:
            shard = replace(
                shard,
                ep_rank=group_of(layout.ep, rank).index(rank),
                ep_size=layout.config.ep_size,
                tp_rank=group_of(layout.moe_tp, rank).index(rank),
                tp_size=layout.config.moe_tp_size,
            )
        shards.append(shard)
    return tuple(shards)


def _place(case: PlannedCase, over: GroupName, rank: int) -> tuple[int, int]:
    """The rank's number in its group, and the group's size."""
    group = group_of(case.groups(over), rank)
    return group.index(rank), len(group)


def _layers(subject: str, world_size: int) -> Iterator[tuple[Deployment, Layer]]:
    block: Block = "dense" if subject == DENSE.block else "experts"
    for weighted in deployments(max_world_size=world_size, min_world_size=world_size):
        # where shared experts live is the plan's to say
        if weighted.deployment.shared == "none":
            for layer in layers_of(weighted.deployment, block=block):
                yield weighted.deployment, layer


def _shared(plan: Plan, addend: Addend) -> Shared:
    """Where the plan has shared experts, in the ledger's words."""
    if addend == "none":
        return "none"
    return "replicated" if addend == "whole" or plan.over("shared") == "none" else "sharded"


def _addends(subject: str) -> tuple[Addend, ...]:
    dense = subject == DENSE.block
    return ADDENDS if not dense and SPECS[subject.partition("/")[0]].shared else ("none",)
