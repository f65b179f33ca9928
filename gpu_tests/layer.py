"""The steps around the block, as release 0.5.11's `layers/communicator.py` takes them.

A rank's hidden states carry, besides their values, what counts them: on the way in one column with
the token's id, on the way out one column for every (token, rank, family) whose partial sum could
have been added. Every collective moves and adds both alike, so the counts are measured on the very
operations that produce the values, and integers come out exact.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gpu_tests.block import MoEBlock
from gpu_tests.cases import Case, fused_groups, site_group
from gpu_tests.kernels import FusedNorm, Routed, sum_and_norm
from gpu_tests.ranks import Group, Ranks, StepError, group_of
from gpu_tests.specs import EPSILON
from gpu_tests.tokens import TokenPlan

FAMILIES = ("routed", "shared")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One rank's layer of `case`: hidden states and residual in, completed sums out."""

    case: Case
    ranks: Ranks
    plan: TokenPlan
    block: MoEBlock
    norm_weight: Tensor
    routed: Routed
    fused_norm: FusedNorm | None = None

    def prepare_mlp(self, partial: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Complete attention's partial sums, add the residual, norm, bring the tokens together.

        `partial` [own rows, H + 1] is this rank's part of the attention output, token ids last and
        only on the first rank of an attention group. Returns the block's input [rows, H + 1] and
        the new residual [own rows, H].
        """
        layout = self.case.deployment.layout
        group = group_of(layout.attn_tp, self.ranks.rank)
        if layout.config.attn_dp_size == 1:
            return self._add_and_norm(self.ranks.all_reduce(partial, group), residual)
        if len(group) == 1:
            states, residual = self._add_and_norm(partial, residual)
            if self.case.deployment.scattered:
                return states, residual
            return self._gather_whole(states), residual
        if self.ranks.rank == group[0]:
            partial = torch.cat([partial[:, :-1] + residual, partial[:, -1:]], 1)
        whole = self._gather_partial(partial)
        residual = self._own(whole)[:, :-1]
        return self._norm(whole), residual

    def forward(self, states: Tensor, *, announced: bool) -> Tensor:
        """The block on [rows, H + 1]: [rows, H + counts], reduced where its guards say so."""
        ids = states[:, -1].long()
        x = states[:, :-1].contiguous()
        choice = self.block.choose(x)
        routed = self._experts(states, choice.ids, choice.weights)
        self.ranks.say("shared experts")
        shared = self.block.shared(x)
        if shared is not None:
            routed = routed + torch.cat([shared, self._witness(ids, "shared", x.dtype)], 1)
        for site in self.case.sites:
            group = group_of(site_group(site, self.case.deployment.layout), self.ranks.rank)
            if len(group) > 1 and self.case.reduces(site, announced=announced):
                self._require_equal_rows(routed, group)
                routed = self.ranks.all_reduce(routed, group)
        return routed

    def _experts(self, states: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        """The standard dispatcher around the experts; under FI it gathers and sums tokens."""
        if self.case.deployment.fp4_allgather:
            world = self.case.deployment.layout.tp[0]
            states = self.ranks.all_gather(states, world, self.plan.rows)
            choice = self.ranks.all_gather(
                torch.cat([weights, ids.to(weights)], 1), world, self.plan.rows
            )
            weights, ids = choice[:, : weights.shape[1]], choice[:, weights.shape[1] :].long()
        self.ranks.say("experts")
        x = states[:, :-1].contiguous()
        out = torch.cat(
            [
                self.routed(x, ids, weights),
                self._witness(states[:, -1].long(), "routed", x.dtype),
            ],
            1,
        )
        if self.case.deployment.fp4_allgather:
            out = self.ranks.reduce_scatter(out, world, self.plan.rows)
        return out

    def postprocess(self, out: Tensor) -> Tensor:
        """Bring [rows, ...] back to this rank's own tokens (`_scatter_hidden_states`)."""
        deployment = self.case.deployment
        config = deployment.config
        if config.attn_dp_size == 1 or deployment.scattered:
            return out
        world = deployment.layout.tp[0]
        if deployment.dp_reduce_scatterv:
            return self.ranks.reduce_scatter(out, world, self.plan.rows)
        if not self.case.flags["RS"]:
            return self._own(out)
        if config.attn_dp_size == config.tp_size:
            return self.ranks.reduce_scatter(out, world, self.plan.rows)
        rows = [len(out) // config.tp_size] * config.tp_size
        part = self.ranks.reduce_scatter(out, world, rows)
        group = group_of(deployment.layout.attn_tp, self.ranks.rank)
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
            group = group_of(fused_groups(self.case.deployment), self.ranks.rank)
            if self.fused_norm is not None and self.fused_norm.covers(group):
                return sum_and_norm(self.fused_norm, out, residual, self.norm_weight)
            out = self.ranks.all_reduce(out, group)
        width = residual.shape[1]
        total = torch.cat([out[:, :width] + residual, out[:, width:]], 1)
        return self._norm_values(total[:, :width]), total

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

    def _witness(self, ids: Tensor, family: str, dtype: torch.dtype) -> Tensor:
        """[rows, counts]: a one where this rank's partial of `family` of the row's token is."""
        world = self.ranks.size
        columns = self.plan.total * world * len(FAMILIES)
        if not columns:
            return torch.zeros(len(ids), 0, dtype=dtype, device=ids.device)
        offset = FAMILIES.index(family) * self.plan.total * world
        column = offset + (ids - 1) * world + self.ranks.rank
        real = (ids > 0).unsqueeze(1)
        marks = torch.zeros(len(ids), columns, dtype=dtype, device=ids.device)
        return marks.scatter(1, column.clamp(min=0).unsqueeze(1), real.to(dtype))

    def _require_equal_rows(self, out: Tensor, group: Group) -> None:
        """Under FI each rank holds its own rows, and a sum over ranks needs equally many."""
        if self.case.deployment.fp4_allgather:
            rows = self.ranks.each(len(out), group)
            if len(set(rows)) > 1:
                raise StepError(f"all-reduce over ranks that hold {rows} rows")

    def _require_own_rows(self, out: Tensor, residual: Tensor) -> None:
        """AF takes `postprocess` out of the layer, so that rows of other groups may stay.

        Ranks tell each other: one whose rows happen to fit must not go on alone.
        """
        if self.case.deployment.config.attn_dp_size > 1:
            world = self.case.deployment.layout.tp[0]
            rows, own = self.ranks.each(len(out), world), self.ranks.each(len(residual), world)
            if rows != own:
                raise StepError(f"{rows} rows by rank meet residuals of {own} rows")
