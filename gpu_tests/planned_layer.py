"""A layer in which block and consumer do what one plan says, and nothing else."""

from dataclasses import dataclass, replace

from torch import Tensor

from gpu_tests.layer import Layer
from gpu_tests.planned import PlannedCase
from gpu_tests.producers import MoE
from gpu_tests.ranks import Group, group_of
from helper.reasons import SKIP_REASONS


@dataclass(frozen=True, kw_only=True)
class PlannedLayer(Layer):
    """One rank's layer of a `PlannedCase`."""

    case: PlannedCase

    @property
    def last(self) -> "PlannedLayer":
        """The same layer as the model's last, by that layer's own plan."""
        return replace(self, case=self.case.followed_by("model end"))

    def forward(self, states: Tensor, *, announced: bool) -> Tensor:
        """The block on [rows, H + 1], summed where the plan says; `announced` is the plan's."""
        del announced
        plan = self.case.plan
        whole = self.case.addend == "whole" and isinstance(self.produce, MoE)
        if not whole:
            return self._completed(self.produce(states))
        assert isinstance(self.produce, MoE)
        out = self._completed(self.produce.routed_rows(states))
        mine = self.produce.shared_rows(states)
        first = group_of(self.case.groups(plan.consumer.over), self.ranks.rank)[0]
        here = plan.whole_on == "every rank" or self.ranks.rank == first
        return out + mine if here else out

    def postprocess(self, out: Tensor) -> Tensor:
        """What the layer owes after the block, but for what its norm does."""
        consumer, config = self.case.plan.consumer, self.case.deployment.config
        if consumer.step in ("nothing", "gather shares"):
            return out
        if consumer.step == "own rows":
            return self._own(out)
        groups = self.case.groups(consumer.over)
        mine = group_of(groups, self.ranks.rank)
        if consumer.step == "reduce_scatterv":
            return self.ranks.reduce_scatter(out, mine, self.plan.rows)
        if consumer.step == "reduce_scatter":
            rows = [len(out) // config.tp_size] * config.tp_size
            part = self.ranks.reduce_scatter(out, mine, rows)
            return self.ranks.all_gather(part, self._attention_group, rows[: config.attn_tp_size])
        summed = self._sum(out, groups)
        form = next(reason.form for reason in SKIP_REASONS if reason.step == consumer.step)
        return self._own(summed) if form == "scatter" else summed

    @property
    def _norm_groups(self) -> tuple[Group, ...]:
        return self.case.groups(self.case.plan.consumer.over)

    def _completed(self, out: Tensor) -> Tensor:
        """The block's own sum."""
        groups = self.case.groups(self.case.plan.block_sum)
        return out if len(groups[0]) == 1 else self._sum(out, groups)
