"""Whose tokens are where: how many rows each attention group brings and which tokens they are."""

from dataclasses import dataclass
from functools import lru_cache

from verify.parallel.deployment import Deployment

PADDING = 0
"""The token id of a row that only fills a tensor up; real tokens are numbered from 1."""

_FEWEST_WITHOUT_DP = 4


@dataclass(frozen=True, kw_only=True)
class TokenPlan:
    """Per attention group, in rank order: its token ids, padding included.

    `total` tokens are counted by witness columns; with 0 nothing is, as when time is measured.
    """

    ids: tuple[tuple[int, ...], ...]
    total: int

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows of each group's tensor."""
        return tuple(map(len, self.ids))


@lru_cache(maxsize=256)
def token_plan(deployment: Deployment) -> TokenPlan:
    """The tokens of one layer call; `deployment.tokens` and `.padding` decide, as upstream pads.

    Attention groups are (attention DP, context parallel) pairs. Without context-parallel extend,
    context-parallel ranks hold the same tokens.
    """
    config = deployment.config
    plan: list[tuple[int, ...]] = []
    total = 0
    for dp_rank in range(config.attn_dp_size):
        own_tokens: tuple[int, ...] = ()
        for cp_rank in range(config.attn_cp_size):
            if cp_rank == 0 or deployment.context_parallel_extend:
                count = _count(deployment, odd=bool(dp_rank % 2))
                own_tokens = tuple(range(total + 1, total + 1 + count))
                total += count
            plan.append(own_tokens)
    if config.attn_dp_size > 1:
        plan = _padded(plan, deployment)
    return TokenPlan(ids=tuple(plan), total=total)


def _count(deployment: Deployment, *, odd: bool) -> int:
    """Tokens of an attention group with an even or an odd number.

    Scattered over the group's ranks, all of them get some: the first row that each of them has is
    a token and no padding, so that what happens to it is seen.
    """
    ranks = deployment.config.attn_tp_size
    if deployment.config.attn_dp_size == 1:
        return ranks * -(-_FEWEST_WITHOUT_DP // ranks)
    if deployment.padding == "max_len":
        # equal rows whatever the tokens: one group less than the other, to have something to pad
        return 2 * ranks - (not odd)
    counts = {
        "even": (2 * ranks, 2 * ranks),
        "uneven": (2 * ranks - 1, 3 * ranks),
        "zero": (0, 3 * ranks),
    }
    return counts[deployment.tokens][odd]


def _padded(plan: list[tuple[int, ...]], deployment: Deployment) -> list[tuple[int, ...]]:
    """Rows rounded up to the attention-TP size, and to the longest group's under MAX_LEN."""
    multiple = deployment.config.attn_tp_size
    rows = [-(-len(ids) // multiple) * multiple for ids in plan]
    if deployment.padding == "max_len":
        rows = [max(rows)] * len(rows)
    return [ids + (PADDING,) * (count - len(ids)) for ids, count in zip(plan, rows, strict=True)]
