"""Which tokens each rank has when a layer's MLP starts, by scatter mode.

Source: 0.5.11, `layers/communicator.py` (`ScatterMode`) and `forward_batch_info.py`
(`prepare_mlp_sync_batch`: token counts are multiples of the attention TP size).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from verify.parallel.counts import Held, Run, State, Tokens
from verify.parallel.deployment import Deployment, TokenCounts
from verify.parallel.layout import Layout

Mode = Literal["full", "moe_full", "scattered"]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The ranks of a deployment and their tokens, which is all that a step may look at.

    `mode` is the MLP's: `ScatterMode.FULL`, `MOE_FULL` or `SCATTERED`.
    """

    deployment: Deployment
    mode: Mode

    @property
    def layout(self) -> Layout:
        """The groups."""
        return self.deployment.layout

    @property
    def world_size(self) -> int:
        """Ranks in the tensor-parallel world."""
        return self.layout.world_size

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Tokens of each attention group: what `get_dp_global_num_tokens` lists."""
        config = self.deployment.config
        attention_tp = config.attn_tp_size
        groups = (
            config.attn_cp_size if self.deployment.context_parallel_extend else config.attn_dp_size
        )
        by_kind = {
            "even": [2] * groups,
            "uneven": [2 + index % 2 for index in range(groups)],
            "zero": [0, *[2] * (groups - 1)],
        }
        return tuple(attention_tp * tokens for tokens in by_kind[self.token_kind(self.deployment)])

    @staticmethod
    def token_kind(deployment: Deployment) -> TokenCounts:
        """MAX_LEN pads every group to the largest, so that only SUM_LEN shows differences."""
        return deployment.tokens if deployment.padding == "sum_len" else "even"

    @cached_property
    def owners(self) -> tuple[int, ...]:
        """The attention group whose tokens each rank works on outside the MLP."""
        config = self.deployment.config
        ranks = range(self.world_size)
        if self.deployment.context_parallel_extend:
            return tuple(rank // config.attn_tp_size % config.attn_cp_size for rank in ranks)
        return tuple(self.layout.attn_dp_rank(rank) for rank in ranks)

    @cached_property
    def attention(self) -> State:
        """`TP_ATTN_FULL`: a rank has its attention group's tokens."""
        if len(self.sizes) == 1:
            return self.everyone
        per_owner = tuple(self._tokens(owner) for owner in range(len(self.sizes)))
        return State(per_owner, self.owners)

    @cached_property
    def everyone(self) -> State:
        """Every rank has the tokens of all attention groups, in order."""
        held = _held(tuple(Tokens(owner, 0, size) for owner, size in enumerate(self.sizes)))
        return State((held,), (0,) * self.world_size)

    @cached_property
    def scattered(self) -> State:
        """A rank has its share of its attention group's tokens."""
        attention_tp = self.deployment.config.attn_tp_size
        shares: list[Held] = []
        for rank, owner in enumerate(self.owners):
            share = self.sizes[owner] // attention_tp
            start = rank % attention_tp * share
            shares.append(_held((Tokens(owner, start, start + share),)))
        return State(tuple(shares), tuple(range(self.world_size)))

    @property
    def mlp_input(self) -> State:
        """What the MLP is given. `FULL` leaves context-parallel ranks with their own tokens."""
        if self.mode == "scattered":
            return self.scattered
        if self.mode == "full" and self.deployment.context_parallel_extend:
            return self.attention
        return self.everyone

    @property
    def residual(self) -> State:
        """The tokens that a rank has a residual for."""
        return self.scattered if self.mode == "scattered" else self.attention

    def _tokens(self, owner: int) -> Held:
        return _held((Tokens(owner, 0, self.sizes[owner]),))


def _held(tokens: tuple[Tokens, ...]) -> Held:
    present = tuple(piece for piece in tokens if piece.start < piece.stop)
    return (Run(present),) if present else ()
