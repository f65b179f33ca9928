"""A judge of plans that shares nothing with the ledger: real layers, one rank against several.

Ranks are simulated, arithmetic is on whole numbers and exact. Experts are cut by a rank's own
coordinates; everything else, who sums and what is held whole, is what the plan says.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helper import Layer, MoeConfig, Plan
from helper.predicates import uses_flashinfer_fp4_allgather

WIDTH, INNER, EXPERTS, CHOSEN = 3, 11, 8, 2


class WrongError(AssertionError):
    """A step of the plan cannot be done with what the ranks hold."""


@dataclass(frozen=True, kw_only=True)
class MLP:
    """`up` [WIDTH, INNER], `down` [INNER, WIDTH]; cut over INNER, its parts add up."""

    up: np.ndarray
    down: np.ndarray

    def part(self, x: np.ndarray, place: int, size: int) -> np.ndarray:
        mine = np.array_split(np.arange(INNER), size)[place]
        return np.maximum(x @ self.up[:, mine], 0) @ self.down[mine]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One block: routed experts with a router, a shared expert, a dense MLP."""

    router: np.ndarray
    experts: Sequence[MLP]
    shared: MLP
    dense: MLP

    @classmethod
    def draw(cls, seed: int) -> "Weights":
        draw = np.random.default_rng(seed)

        def mlp() -> MLP:
            return MLP(
                up=draw.integers(-9, 9, (WIDTH, INNER)), down=draw.integers(-9, 9, (INNER, WIDTH))
            )

        return cls(
            router=draw.integers(-9, 9, (WIDTH, EXPERTS)),
            experts=[mlp() for _ in range(EXPERTS)],
            shared=mlp(),
            dense=mlp(),
        )

    def routed(
        self, x: np.ndarray, held: Sequence[int], *, place: int = 0, size: int = 1
    ) -> np.ndarray:
        """What the experts `held`, each cut to one of `size` parts, add to the chosen rows."""
        out = np.zeros_like(x)
        chosen = np.argsort(-(x @ self.router), axis=1, kind="stable")[:, :CHOSEN]
        for expert in held:
            rows = (chosen == expert).any(axis=1)
            out[rows] += self.experts[expert].part(x[rows], place, size)
        return out

    def whole_value(self, x: np.ndarray) -> np.ndarray:
        """What every rank computes alike, zero experts say."""
        return 5 * x


@dataclass(frozen=True, kw_only=True)
class World:
    """Ranks of `config`, and how many tokens each attention group brings for each rank it has."""

    config: MoeConfig
    layer: Layer
    tokens: Sequence[int]
    seed: int

    def group(self, rank: int, over: str) -> list[int]:
        config = self.config
        block = config.ep_size * config.moe_tp_size

        def same(other: int) -> bool:
            mine, theirs = rank, other
            copy = mine // block == theirs // block
            return {
                "none": mine == theirs,
                "tp": True,
                "ep": copy and mine % config.moe_tp_size == theirs % config.moe_tp_size,
                "moe_tp": mine // config.moe_tp_size == theirs // config.moe_tp_size,
                "attn_tp": mine // config.attn_tp_size == theirs // config.attn_tp_size,
            }[over]

        return [other for other in range(config.tp_size) if same(other)]

    def owner(self, rank: int) -> int:
        """Whose tokens the rank has outside the block."""
        attention = rank // self.config.attn_tp_size
        if self.config.attn_cp_size == 1:
            return attention
        return attention % self.config.attn_cp_size if self.layer.contexts_differ else 0

    def owners(self) -> int:
        return max(map(self.owner, range(self.config.tp_size))) + 1

    def counts(self) -> list[int]:
        each = list(self.tokens[: self.owners()])
        if self.layer.equal_rows or self.config.attn_dp_size == 1:
            each = [max(each)] * len(each) if self.config.attn_dp_size > 1 else each
        return [self.config.attn_tp_size * number for number in each]

    def values(self) -> list[np.ndarray]:
        """Every owner's tokens."""
        draw = np.random.default_rng(self.seed)
        return [draw.integers(-9, 9, (count, WIDTH)) for count in self.counts()]


def right(world: World, weights: Weights, *, addends: Sequence[str]) -> list[np.ndarray]:
    """By owner: what one rank computes."""

    def block(x: np.ndarray) -> np.ndarray:
        if world.layer.block == "dense":
            return weights.dense.part(x, 0, 1)
        out = weights.routed(x, range(EXPERTS))
        if "shared" in addends:
            out = out + weights.shared.part(x, 0, 1)
        return out + weights.whole_value(x) if "whole" in addends else out

    return [block(x) for x in world.values()]


def follow(
    world: World, plan: Plan, weights: Weights, *, addends: Sequence[str]
) -> list[np.ndarray]:
    """By rank: what a layer that follows `plan` leaves. Raises `WrongError` for the impossible."""
    config, layer = world.config, world.layer
    ranks = range(config.tp_size)
    inputs = [_input(world, plan, rank) for rank in ranks]
    held = _made(world, plan, weights, inputs)
    if "shared" in addends and layer.block == "experts":
        for rank in ranks:
            group = world.group(rank, plan.shared.over)
            part = weights.shared.part(inputs[rank], group.index(rank), len(group))
            held[rank] = held[rank] + part
    held = _sum(world, held, plan.block_sum)
    if "whole" in addends and layer.block == "experts":
        for rank in ranks:
            first = world.group(rank, plan.consumer.over)[0]
            if plan.whole_on == "every rank" or rank == first:
                held[rank] = held[rank] + weights.whole_value(inputs[rank])
    return _consumed(world, plan, held)


def _input(world: World, plan: Plan, rank: int) -> np.ndarray:
    values, owner = world.values(), world.owner(rank)
    if plan.rows == "all":
        return np.concatenate(values)
    if plan.rows == "attention group":
        return values[owner]
    size = world.config.attn_tp_size
    return np.split(values[owner], size)[rank % size]


def _made(
    world: World, plan: Plan, weights: Weights, inputs: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Routed experts' or a dense MLP's output, before anything else is added."""
    config, layer = world.config, world.layer
    ranks = range(config.tp_size)
    if layer.block == "dense":
        groups = [world.group(rank, plan.dense.over) for rank in ranks]
        return [
            weights.dense.part(inputs[rank], group.index(rank), len(group))
            for rank, group in zip(ranks, groups, strict=True)
        ]
    everyone = range(EXPERTS)
    dispatched = config.moe_a2a_backend != "none" or uses_flashinfer_fp4_allgather(config)
    if dispatched or layer.experts_everywhere:
        # complete for the rows that the rank brought, whoever holds the experts
        return [weights.routed(x, everyone) for x in inputs]

    def own(rank: int) -> np.ndarray:
        expert_rank = rank // config.moe_tp_size % config.ep_size
        held = np.array_split(np.arange(EXPERTS), config.ep_size)[expert_rank]
        return weights.routed(
            inputs[rank], held, place=rank % config.moe_tp_size, size=config.moe_tp_size
        )

    return [own(rank) for rank in ranks]


def _sum(world: World, held: Sequence[np.ndarray], over: str) -> list[np.ndarray]:
    summed = []
    for rank in range(len(held)):
        parts = [held[other] for other in world.group(rank, over)]
        if len({part.shape for part in parts}) > 1:
            raise WrongError(f"a sum over {over} of tensors of different sizes")
        summed.append(np.sum(parts, axis=0))
    return summed


def _consumed(world: World, plan: Plan, held: list[np.ndarray]) -> list[np.ndarray]:
    step, layer, config = plan.consumer.step, world.layer, world.config
    if step == "nothing":
        return held
    if step == "gather shares":
        return [
            np.concatenate([held[other] for other in world.group(rank, "attn_tp")])
            for rank in range(len(held))
        ]
    held = _sum(world, held, plan.consumer.over)
    if step == "fused norm":
        if layer.next != "fused norm":
            raise WrongError("no such norm")
        return held
    if step == "reduce_scatter" and not (layer.may_scatter and layer.equal_rows):
        raise WrongError("no reduce-scatter of unequal rows")
    if step == "reduce_scatterv" and not (layer.may_scatter and config.attn_tp_size == 1):
        raise WrongError("no reduce_scatterv: it wants a size for each rank")
    starts = np.cumsum([0, *world.counts()])
    if any(len(rows) != starts[-1] for rows in held):
        raise WrongError("own rows of rows that are not there")
    return [
        rows[starts[world.owner(rank)] : starts[world.owner(rank) + 1]]
        for rank, rows in enumerate(held)
    ]


def is_exact(world: World, plan: Plan, *, addends: Sequence[str]) -> bool:
    """Whether every rank ends with its owner's rows as one rank computes them."""
    weights = Weights.draw(world.seed)
    wanted = right(world, weights, addends=addends)
    try:
        held = follow(world, plan, weights, addends=addends)
    except (WrongError, KeyError, ValueError):
        return False
    return all(
        np.array_equal(held[rank], wanted[world.owner(rank)])
        for rank in range(world.config.tp_size)
    )
