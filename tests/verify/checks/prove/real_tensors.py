"""A second judge that shares nothing with the ledger but the names of the steps.

Programs run on real tensors on in-process ranks, with groups from rank coordinates and the
collectives of `verify.emulator.ranks`. Every partial of every token is one unit in a column of its
own, and beside these columns stand random numbers: the columns say which kind of mistake it is,
the numbers whether it is one.
"""

import math

import torch

from verify.emulator.ranks import Rank, RanksError, run_ranks
from verify.parallel.deployment import Deployment

FAMILIES = ("routed", "shared", "residual")
NUMBERS = 4


def kind(deployment: Deployment, mode: str, program: tuple[str, ...]) -> str:
    """exact, double, missing, mixed or crash."""
    world = World(deployment, mode)
    try:
        results = run_ranks(
            lambda rank: world.body(rank, program),
            world_size=world.size,
            time_limit=60.0,
        )
    except RanksError:
        return "crash"
    return worst(world, [result for result in results if result is not None])


class World:
    """Rank coordinates, tokens and the value of every partial."""

    def __init__(self, deployment: Deployment, mode: str) -> None:
        config = deployment.config
        self.deployment, self.mode, self.config = deployment, mode, config
        self.size = config.tp_size
        self.block = config.ep_size * config.moe_tp_size
        uneven = deployment.tokens if deployment.padding == "sum_len" else "even"
        groups = config.attn_cp_size if deployment.context_parallel_extend else config.attn_dp_size
        each = {
            "even": lambda _: 2,
            "uneven": lambda index: 2 + index % 2,
            "zero": lambda index: 2 * (index > 0),
        }[uneven]
        self.sizes = [each(index) * config.attn_tp_size for index in range(groups)]
        self.tokens = sum(self.sizes)
        generator = torch.Generator().manual_seed(self.size)
        columns = len(FAMILIES) * self.size * self.tokens
        # whole numbers below 2**20: float64 sums of them are exact
        self.numbers = torch.randint(
            1, 1 << 20, (columns, NUMBERS), generator=generator, dtype=torch.float64
        )

    def column(self, family: str, part: int, token: int) -> int:
        return (FAMILIES.index(family) * self.size + part) * self.tokens + token

    def partial(self, family: str, part: int, tokens: list[int]) -> torch.Tensor:
        rows = torch.zeros(len(tokens), len(self.numbers) + NUMBERS, dtype=torch.float64)
        for row, token in enumerate(tokens):
            place = self.column(family, part, token)
            rows[row, place] = 1
            rows[row, len(self.numbers) :] = self.numbers[place]
        return rows

    def group(self, rank: int, what: str) -> tuple[int, ...]:
        config = self.config

        def coordinates(one: int) -> tuple[int, int, int, int]:
            moe_dp, inner = divmod(one, self.block)
            ep, moe_tp = divmod(inner, config.moe_tp_size)
            return moe_dp, ep, moe_tp, one // config.attn_tp_size

        mine = coordinates(rank)
        same = {"ep": (0, 2), "moe_tp": (0, 1), "tp": (), "attention_tp": (3,)}[what]
        return tuple(
            other
            for other in range(self.size)
            if all(coordinates(other)[axis] == mine[axis] for axis in same)
        )

    def owner(self, rank: int) -> int:
        attention = rank // self.config.attn_tp_size
        if self.deployment.context_parallel_extend:
            return attention % self.config.attn_cp_size
        return attention // self.config.attn_cp_size

    def own(self, rank: int) -> list[int]:
        owner = self.owner(rank)
        start = sum(self.sizes[:owner])
        return list(range(start, start + self.sizes[owner]))

    def share(self, rank: int) -> list[int]:
        own = self.own(rank)
        size = len(own) // self.config.attn_tp_size
        start = rank % self.config.attn_tp_size * size
        return own[start : start + size]

    def body(self, rank: Rank, program: tuple[str, ...]) -> tuple[torch.Tensor, set[str]]:
        me, everyone = rank.rank, list(range(self.tokens))
        if self.mode == "scattered":
            tokens = self.share(me)
        elif self.mode == "full" and self.deployment.context_parallel_extend:
            tokens = self.own(me)
        else:
            tokens = everyone
        held = torch.zeros(len(tokens), len(self.numbers) + NUMBERS, dtype=torch.float64)
        for step in program:
            if step in PARTIALS:
                held = held + self.produced(me, step, tokens)
            elif step == "residual_add":
                mine = self.share(me) if self.mode == "scattered" else self.own(me)
                if len(mine) != len(held):
                    raise ValueError("the residual has another shape")
                held = held + self.partial("residual", 0, mine)
            elif step.endswith("_all_reduce"):
                held = rank.all_reduce(held, group=self.group(me, step[: -len("_all_reduce")]))
            else:
                held = self.moved(rank, step, held)
                tokens = everyone if step == "fp4_dispatch" else self.own(me)
        return held, set(program)

    def produced(self, rank: int, step: str, tokens: list[int]) -> torch.Tensor:
        family, parts = PARTIALS[step]
        everything = torch.zeros(len(tokens), len(self.numbers) + NUMBERS, dtype=torch.float64)
        for part in parts(self, rank):
            everything += self.partial(family, part, tokens)
        return everything

    def moved(self, rank: Rank, step: str, held: torch.Tensor) -> torch.Tensor:
        group = self.group(rank.rank, "attention_tp")
        if step == "fp4_dispatch":
            return rank.all_gatherv(held, sizes=self.sizes)
        if step in ("fp4_combine", "dp_reduce_scatterv"):
            return rank.reduce_scatterv(held, sizes=self.sizes)
        if step in ("dp_scatter", "moe_cp_slice"):
            if len(held) != self.tokens:
                raise ValueError("rows are copied that are not there")
            return held[self.own(rank.rank)]
        if step == "dp_reduce_scatter":
            held = rank.reduce_scatter(held)
        elif step != "attention_gather":
            raise AssertionError(f"{step} is unknown here")
        return rank.all_gather(held, group=group) if len(group) > 1 else held


PARTIALS = {
    "routed_experts": ("routed", lambda world, rank: [rank % world.block]),
    "all_to_all_experts": ("routed", lambda world, _: range(world.size)),
    "dense_mlp": ("routed", lambda _, rank: [rank]),
    "dense_mlp_fully_dp": ("routed", lambda *_: [0]),
    "shared_sharded": ("shared", lambda _, rank: [rank]),
    "shared_replicated": ("shared", lambda *_: [0]),
}


def worst(world: World, results: list[tuple[torch.Tensor, set[str]]]) -> str:
    """The kind of mistake in the ranks' tensors, the columns and the numbers agreeing."""
    kinds = [rank_kind(world, rank, held, done) for rank, (held, done) in enumerate(results)]
    for family in ("any", *FAMILIES):
        for name in ("mixed", "double", "missing"):
            if (family, name) in set().union(*kinds):
                return name
    return "exact"


def rank_kind(world: World, rank: int, held: torch.Tensor, done: set[str]) -> set[tuple[str, str]]:
    own = world.own(rank)
    if len(held) != len(own):
        return {("any", "mixed")}
    found: set[tuple[str, str]] = set()
    owed = {
        "routed": world.size
        if done & {"all_to_all_experts", "dense_mlp"}
        else world.block
        if "routed_experts" in done
        else 1
        if "dense_mlp_fully_dp" in done
        else 0,
        "shared": world.size if "shared_sharded" in done else int("shared_replicated" in done),
        "residual": int("residual_add" in done),
    }
    for row, token in zip(held, own, strict=True):
        units = row[: len(world.numbers)].reshape(len(FAMILIES), world.size, world.tokens)
        others = units.sum(dim=(0, 1))
        others[token] = 0
        if others.any():
            found.add(("any", "mixed"))
        complete = torch.zeros(NUMBERS, dtype=torch.float64)
        for family, parts in owed.items():
            counts = units[FAMILIES.index(family), :, token]
            if (counts[:parts] > 1).any() or counts[parts:].any():
                found.add((family, "double"))
            if (counts[:parts] < 1).any():
                found.add((family, "missing"))
            for part in range(parts):
                complete += world.numbers[world.column(family, part, token)]
        right = all(
            math.isclose(a, b, rel_tol=0, abs_tol=0)
            for a, b in zip(row[len(world.numbers) :].tolist(), complete.tolist(), strict=True)
        )
        if right == bool(found):
            raise AssertionError(f"rank {rank}: the columns and the numbers disagree")
    return found
