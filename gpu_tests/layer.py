"""The steps around the MLP, as release 0.5.11's `layers/communicator.py` takes them.

Hidden states carry their witness (`gpu_tests/witness.py`) through every one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpu_tests.cases import Case, fused_groups, site_groups
from gpu_tests.kernels import FusedNorm, sum_and_norm
from gpu_tests.producers import Producer
from gpu_tests.ranks import Group, Ranks, StepError, group_of
from gpu_tests.specs import EPSILON
from gpu_tests.tokens import TokenPlan


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One rank's layer of `case`: hidden states and residual in, completed sums out.

    A rank's *own* rows are its attention group's; where the MLP is `scattered` they are cut into
    one *share* for each rank of the group, and the residual is kept for the share only.
    """

    case: Case
    ranks: Ranks
    plan: TokenPlan
    produce: Producer
    norm_weight: Tensor
    fused_norm: FusedNorm | None = None

    def share(self, own: Tensor) -> Tensor:
        """The rows that this rank has a residual for, of its own rows."""
        group = self._attention_group
        if self.case.mode != "scattered" or len(group) == 1:
            return own
        return own.tensor_split(len(group))[group.index(self.ranks.rank)]

    def to_attention(self, share: Tensor) -> Tensor:
        """All own rows again (`_scattered_to_tp_attn_full`, and `_gather` after the last layer)."""
        group = self._attention_group
        if self.case.mode != "scattered":
            return share
        return self.ranks.all_gather(share, group, [len(share)] * len(group))

    def prepare_mlp(self, partial: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Complete attention's partial sums, add the residual, norm, bring the tokens together.

        `partial` [own rows, H + 1] is this rank's part of the attention output, token ids last and
        only on the first rank of an attention group; `residual` is [share, H]. Returns the MLP's
        input [rows, H + 1] and the new residual.
        """
        group = self._attention_group
        if self.case.mode == "scattered":
            share = len(partial) // len(group)
            own = self.ranks.reduce_scatter(partial, group, [share] * len(group))
            return self._add_and_norm(own, residual)
        if self.case.deployment.config.attn_dp_size == 1:
            whole = self.ranks.all_reduce(partial, group)
            states, residual = self._add_and_norm(whole, residual)
            return self._gather_contexts(states), residual
        if len(group) == 1:
            states, residual = self._add_and_norm(partial, residual)
            return self._gather_whole(states), residual
        if self.ranks.rank == group[0]:
            partial = torch.cat([partial[:, :-1] + residual, partial[:, -1:]], 1)
        gathered = self._gather_partial(partial)
        residual = self._own(gathered)[:, :-1]
        return self._norm(gathered), residual

    def forward(self, states: Tensor, *, announced: bool) -> Tensor:
        """The MLP on [rows, H + 1]: [rows, H + counts], reduced where its guards say so."""
        out = self.produce(states)
        for site in self.case.reached_sites:
            groups = site_groups(site, self.case.deployment.layout)
            if len(groups[0]) > 1 and self.case.reduces(site, announced=announced):
                out = self._sum(out, groups)
        return out

    def postprocess(self, out: Tensor) -> Tensor:
        """Bring [rows, ...] back to this rank's own tokens (`CommunicateSummableTensorPairFn`)."""
        deployment, mode = self.case.deployment, self.case.mode
        config = deployment.config
        if mode == "moe_full" and deployment.context_parallel_extend:
            return self._own(out)
        if config.attn_dp_size == 1 or mode == "scattered":
            return out
        world = deployment.layout.tp[0]
        if deployment.sums_by_scatterv:
            return self.ranks.reduce_scatter(out, world, self.plan.rows)
        if not self.case.flags["RS"]:
            return self._own(out)
        if config.attn_dp_size == config.tp_size:
            return self.ranks.reduce_scatter(out, world, self.plan.rows)
        rows = [len(out) // config.tp_size] * config.tp_size
        part = self.ranks.reduce_scatter(out, world, rows)
        group = self._attention_group
        return self.ranks.all_gather(part, group, rows[: len(group)])

    def prepare_attn(
        self, out: Tensor, residual: Tensor, *, announced: bool
    ) -> tuple[Tensor, Tensor]:
        """The next layer's first step: [own rows, H] normed for attention, and the new residual.

        The residual carries the counts as further columns. With `announced` (AF) the sum is
        completed here, over the group that this deployment's norm really reduces over.
        """
        if announced:
            self._require_own_rows(out, residual)
            groups = self._norm_groups
            group = group_of(groups, self.ranks.rank)
            if self.fused_norm is not None and self.fused_norm.covers(group):
                normed, total = sum_and_norm(self.fused_norm, out, residual, self.norm_weight)
                return self.to_attention(normed), total
            out = self._sum(out, groups)
        width = residual.shape[1]
        total = torch.cat([out[:, :width] + residual, out[:, width:]], 1)
        return self.to_attention(self._norm_values(total[:, :width])), total

    @property
    def last(self) -> "Layer":
        """The same layer as the model's last, which has no next norm to announce a sum to."""
        return self

    @property
    def _norm_groups(self) -> tuple[Group, ...]:
        """Over which ranks the next layer's norm sums where the sum was left to it."""
        return fused_groups(self.case.deployment)

    @property
    def _attention_group(self) -> Group:
        return group_of(self.case.deployment.layout.attn_tp, self.ranks.rank)

    def _gather_contexts(self, states: Tensor) -> Tensor:
        """Context-parallel ranks' tokens side by side (`_gather_hidden_states_and_residual_moe`).

        Only in a prefill do they have different ones.
        """
        deployment = self.case.deployment
        if self.case.mode != "moe_full" or not deployment.context_parallel_extend:
            return states
        group = group_of(deployment.layout.moe_dp, self.ranks.rank)
        return self.ranks.all_gather(states, group, self.plan.rows)

    def _gather_whole(self, states: Tensor) -> Tensor:
        """Every attention group's complete rows, one group after the other."""
        world = self.case.deployment.layout.tp[0]
        if self.case.deployment.padding == "max_len":
            return self.ranks.all_gather(states, world, self.plan.rows)
        return self.ranks.all_reduce(self._placed(states), world)

    def _gather_partial(self, partial: Tensor) -> Tensor:
        """Every attention group's rows, completed on the way."""
        layout = self.case.deployment.layout
        if self.case.deployment.padding == "sum_len":
            return self.ranks.all_reduce(self._placed(partial), layout.tp[0])
        group = group_of(layout.attn_tp, self.ranks.rank)
        part = len(partial) // len(group)
        mine = self.ranks.reduce_scatter(partial, group, [part] * len(group))
        return self.ranks.all_gather(mine, layout.tp[0], [part] * layout.world_size)

    def _placed(self, states: Tensor) -> Tensor:
        """`states` at this attention group's place among all rows, zeros elsewhere."""
        whole = states.new_zeros(sum(self.plan.rows), states.shape[1])
        self._own(whole).copy_(states)
        return whole

    def _own(self, whole: Tensor) -> Tensor:
        """This attention group's rows of all rows."""
        index = self.ranks.rank // self.case.deployment.config.attn_tp_size
        start = sum(self.plan.rows[:index])
        return whole[start : start + self.plan.rows[index]]

    def _add_and_norm(self, states: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        residual = states[:, :-1] + residual
        return self._norm(torch.cat([residual, states[:, -1:]], 1)), residual

    def _norm(self, states: Tensor) -> Tensor:
        return torch.cat([self._norm_values(states[:, :-1]), states[:, -1:]], 1)

    def _norm_values(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPSILON)
        return normed.to(x.dtype) * self.norm_weight

    def _sum(self, out: Tensor, groups: Sequence[Group]) -> Tensor:
        """The sum over this rank's one of `groups`.

        Where ranks hold their own rows it needs equally many in a group. All ranks look at all
        groups: one whose own group could go on must not go on alone.
        """
        if self.case.mode == "scattered":
            rows = self.ranks.each(len(out), self.case.deployment.layout.tp[0])
            for group in groups:
                held = [rows[rank] for rank in group]
                if len(set(held)) > 1:
                    raise StepError(f"all-reduce over ranks that hold {held} rows")
        return self.ranks.all_reduce(out, group_of(groups, self.ranks.rank))

    def _require_own_rows(self, out: Tensor, residual: Tensor) -> None:
        """AF takes `postprocess` out of the layer, so that rows of other groups may stay.

        Ranks tell each other: one whose rows happen to fit must not go on alone.
        """
        if self.case.deployment.config.attn_dp_size > 1:
            world = self.case.deployment.layout.tp[0]
            rows, own = self.ranks.each(len(out), world), self.ranks.each(len(residual), world)
            if rows != own:
                raise StepError(f"{rows} rows by rank meet residuals of {own} rows")
