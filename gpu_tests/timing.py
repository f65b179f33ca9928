"""What a rank measures: the cost of a choice, of a wrapper, of everything that is neither."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from gpu_tests.block import MoEBlock, Shard, Weights, weights_of
from gpu_tests.blocks import subjects
from gpu_tests.cases import Case, Dtype, Experts
from gpu_tests.clock import REPEATS, WARM_UP, Stopwatch, microseconds
from gpu_tests.kernels import flashinfer_experts, fused_norm
from gpu_tests.layer import Layer
from gpu_tests.producers import MoE, standard
from gpu_tests.ranks import Group, Ranks
from gpu_tests.ranks import all_gather_into as bare_all_gather
from gpu_tests.ranks import reduce_scatter_into as bare_reduce_scatter
from gpu_tests.specs import EPSILON, SPECS, ModelSpec
from gpu_tests.tokens import TokenPlan
from gpu_tests.witness import Witness
from helper import MoeConfig
from verify.ledger.deployment import Deployment

Collective = Literal["all-reduce", "all-gather", "reduce-scatter"]
COLLECTIVES: tuple[Collective, ...] = ("all-reduce", "all-gather", "reduce-scatter")
# every consumer by the row in which it alone is responsible
ROWS = ("0000", "0001", "0010", "0100", "1000")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What `row`'s consumer costs when the block skips (right) and when it reduces too (wrong)."""

    row: str
    tokens: int
    hidden: int
    dtype: Dtype
    experts: Experts


@dataclass(frozen=True, kw_only=True)
class Bandwidth:
    """A collective through `Ranks` beside the bare call."""

    collective: Collective
    tokens: int
    hidden: int
    dtype: Dtype


@dataclass(frozen=True, kw_only=True)
class Share:
    """A whole layer's time: experts, collectives, and the rest."""

    model: str
    tokens: int
    hidden: int
    intermediate: int
    dtype: Dtype
    experts: Experts


Item = Choice | Bandwidth | Share
Timings = dict[str, float]


def measure(ranks: Ranks, item: Item) -> Timings:
    """Microseconds by name, on this rank."""
    with torch.inference_mode():
        match item:
            case Choice():
                return _choice(ranks, item)
            case Bandwidth():
                return _bandwidth(ranks, item)
            case Share():
                return _share(ranks, item)


def _choice(ranks: Ranks, item: Choice) -> Timings:
    dtype = getattr(torch, item.dtype)
    # scattered rows have to divide among the ranks; one token more or less does not matter
    rows = -(-item.tokens // ranks.size) * ranks.size
    states = torch.zeros(rows, item.hidden, device=ranks.device, dtype=dtype)
    consume = _consumer(ranks, item, states)

    def reduce_too() -> None:
        _all_reduce(states)
        consume()

    ranks.say(f"timing row {item.row} with {rows} tokens")
    return {
        "skip": microseconds(consume, ranks.device),
        "double": microseconds(reduce_too, ranks.device),
    }


def _consumer(ranks: Ranks, item: Choice, states: Tensor) -> Callable[[], object]:
    """What completes the sum in `item.row`; in 0000 nobody but the block, so skipping is free."""
    part = len(states) // ranks.size
    own = states[:part].clone()
    match item.row:
        case "0000":
            return lambda: None
        case "0100" | "0010":
            return lambda: bare_reduce_scatter(own, states)
        case "0001":
            whole = torch.empty_like(states)

            def dispatch_and_combine() -> None:
                bare_all_gather(whole, own)
                bare_reduce_scatter(own, states)

            return dispatch_and_combine
    residual, weight = torch.zeros_like(states), torch.ones_like(states[0])
    fused = fused_norm(ranks)
    if item.experts == "flashinfer" and ranks.size > 1 and fused.fits(states):
        return lambda: fused(states, residual, weight)

    def reduce_add_norm() -> Tensor:
        _all_reduce(states)
        total = states + residual
        return torch.nn.functional.rms_norm(total, weight.shape, weight, EPSILON)

    return reduce_add_norm


def _all_reduce(states: Tensor) -> None:
    dist.all_reduce(states)


def _bandwidth(ranks: Ranks, item: Bandwidth) -> Timings:
    dtype = getattr(torch, item.dtype)
    rows = -(-item.tokens // ranks.size) * ranks.size
    whole = torch.zeros(rows, item.hidden, device=ranks.device, dtype=dtype)
    part = rows // ranks.size
    own = whole[:part].clone()
    world: Group = tuple(range(ranks.size))
    shares: Sequence[int] = [part] * ranks.size
    ranks.say(f"timing {item.collective} of {rows} tokens")
    steps: dict[Collective, tuple[Callable[[], object], Callable[[], object]]] = {
        "all-reduce": (lambda: ranks.all_reduce(whole, world), lambda: _all_reduce(whole)),
        "all-gather": (
            lambda: ranks.all_gather(own, world, shares),
            lambda: bare_all_gather(torch.empty_like(whole), own),
        ),
        "reduce-scatter": (
            lambda: ranks.reduce_scatter(whole, world, shares),
            lambda: bare_reduce_scatter(torch.empty_like(own), whole),
        ),
    }
    wrapped, bare = steps[item.collective]
    return {
        "wrapped": microseconds(wrapped, ranks.device),
        "bare": microseconds(bare, ranks.device),
    }


class _TimedRanks(Ranks):
    """Ranks whose collectives are timed; a group of one has none."""

    stopwatch: Stopwatch

    def all_reduce(self, tensor: Tensor, group: Group) -> Tensor:
        with self.stopwatch:
            return super().all_reduce(tensor, group)

    def all_gather(self, tensor: Tensor, group: Group, rows: Sequence[int]) -> Tensor:
        with self.stopwatch:
            return super().all_gather(tensor, group, rows)


def _share(ranks: Ranks, item: Share) -> Timings:
    layer, timed = _layer(ranks, item)
    dtype = getattr(torch, item.dtype)
    partial = torch.randn(item.tokens, item.hidden + 1, device=ranks.device, dtype=dtype)
    partial[:, -1] = 0
    residual = torch.randn(item.tokens, item.hidden, device=ranks.device, dtype=dtype)

    def step() -> None:
        states, new_residual = layer.prepare_mlp(partial.clone(), residual)
        layer.prepare_attn(layer.forward(states, announced=False), new_residual, announced=False)

    ranks.say(f"timing a layer of {item.tokens} tokens")
    for _ in range(WARM_UP):
        step()
    # all three from the same runs, so that they can be subtracted
    whole, timed.experts, timed.ranks.stopwatch = (Stopwatch(device=ranks.device) for _ in range(3))
    for _ in range(REPEATS):
        with whole:
            step()
    return {
        "layer": whole.total() / REPEATS,
        "experts": timed.experts.total() / REPEATS,
        "collectives": timed.ranks.stopwatch.total() / REPEATS,
    }


@dataclass(kw_only=True)
class _Timed:
    """The stopwatches of one layer."""

    ranks: _TimedRanks
    experts: Stopwatch


def _layer(ranks: Ranks, item: Share) -> tuple[Layer, _Timed]:
    """A pure-TP layer of realistic size with random weights; nothing is counted in it."""
    timed = _Timed(
        ranks=_TimedRanks(
            rank=ranks.rank, size=ranks.size, device=ranks.device, say=ranks.say, call=ranks.call
        ),
        experts=Stopwatch(device=ranks.device),
    )
    timed.ranks.stopwatch = Stopwatch(device=ranks.device)
    dtype = getattr(torch, item.dtype)
    spec = replace(SPECS[item.model], hidden=item.hidden, intermediate=item.intermediate)
    shard = Shard(
        tp_rank=ranks.rank, tp_size=ranks.size, shared_rank=ranks.rank, shared_size=ranks.size
    )
    block = MoEBlock(spec, _random_weights(spec, dtype, ranks.device), shard)
    routed = flashinfer_experts(block, shard) if item.experts == "flashinfer" else block.routed

    def timed_routed(x: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        with timed.experts:
            return routed(x, ids, weights)

    subject = subjects((item.model,))[0]
    deployment = Deployment(config=MoeConfig(tp_size=ranks.size))
    layer = Layer(
        case=Case(subject=subject, deployment=deployment, guard="helper", dtype=item.dtype),
        ranks=timed.ranks,
        plan=TokenPlan(ids=((0,) * item.tokens,), total=0),
        produce=MoE(
            ranks=timed.ranks,
            layout=deployment.layout,
            block=block,
            witness=Witness(tokens=0, ranks=ranks.size),
            rows=(item.tokens,),
            routed=timed_routed,
            dispatch=standard,
        ),
        norm_weight=torch.ones(item.hidden, device=ranks.device, dtype=dtype),
    )
    return layer, timed


def _random_weights(spec: ModelSpec, dtype: torch.dtype, device: torch.device) -> Weights:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, dtype=dtype).div(shape[-1] ** 0.5)

    router = draw(spec.experts, spec.hidden)
    bias = draw(1, spec.experts)[0] if spec.bias else None
    return weights_of(spec, draw, router=router, bias=bias)
