"""What a rank measures: the cost of a choice, of a wrapper, of everything that is neither."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from gpu_tests.block import MoEBlock, Shard, Weights, weights_of
from gpu_tests.blocks import subjects
from gpu_tests.cases import Case, Dtype, Kernels
from gpu_tests.clock import timings
from gpu_tests.kernels import WORKSPACE_ROWS, flashinfer_experts, fused_norm
from gpu_tests.layer import Layer
from gpu_tests.producers import MoE, standard
from gpu_tests.ranks import Group, Ranks
from gpu_tests.ranks import all_gather_into as bare_all_gather
from gpu_tests.ranks import reduce_scatter_into as bare_reduce_scatter
from gpu_tests.specs import EPSILON, SPECS, ModelSpec
from gpu_tests.tokens import TokenPlan
from gpu_tests.witness import Witness
from helper import MoeConfig
from verify.parallel.deployment import Deployment

Collective = Literal["all-reduce", "all-gather", "reduce-scatter"]
COLLECTIVES: tuple[Collective, ...] = ("all-reduce", "all-gather", "reduce-scatter")
# what a layer asks of its peers in one go
Step = Literal["all-reduce", "all-gather", "reduce-scatter", "fused norm"]
# every consumer by the row in which it alone is responsible
ROWS = ("0000", "0001", "0010", "0100", "1000")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What `row`'s consumer costs when the block skips (right) and when it reduces too (wrong)."""

    row: str
    tokens: int
    hidden: int
    dtype: Dtype
    kernels: Kernels


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
    kernels: Kernels


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What a step cannot be faster than: its smallest call, and the link in its largest.

    `rows` of `hidden` numbers are the largest. The smallest of a collective has a number a rank, of
    the fused norm a row.
    """

    step: Step
    rows: int
    hidden: int
    dtype: Dtype


Item = Choice | Bandwidth | Share | Floor
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
            case Floor():
                return _floor(ranks, item)


def _choice(ranks: Ranks, item: Choice) -> Timings:
    dtype = getattr(torch, item.dtype)
    rows = padded(item.tokens, ranks.size)
    states = torch.zeros(rows, item.hidden, device=ranks.device, dtype=dtype)
    consume = _consumer(ranks, item, states)

    def reduce_too() -> None:
        _all_reduce(states)
        consume()

    ranks.say(f"timing row {item.row} with {rows} tokens")
    # where nobody sums but the block, skipping is nothing to be timed
    steps = {} if item.row == "0000" else {"skip": consume}
    return timings({**steps, "double": reduce_too}, ranks.device)


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
    if norm_of(item, ranks.size) == "flashinfer":
        return _fused_norm(ranks, states)
    residual, weight = torch.zeros_like(states), torch.ones_like(states[0])

    def reduce_add_norm() -> Tensor:
        _all_reduce(states)
        total = states + residual
        return torch.nn.functional.rms_norm(total, weight.shape, weight, EPSILON)

    return reduce_add_norm


def norm_of(item: Choice, ranks: int) -> str:
    """Whose norm completes row 1000: flashinfer's where it is chosen and has room for the rows."""
    fits = padded(item.tokens, ranks) <= WORKSPACE_ROWS
    return item.kernels.norm if ranks > 1 and fits else "torch"


def padded(tokens: int, ranks: int) -> int:
    """Rows that divide among the ranks; one token more or less does not matter."""
    return -(-tokens // ranks) * ranks


def _fused_norm(ranks: Ranks, states: Tensor) -> Callable[[], object]:
    residual, weight = torch.zeros_like(states), torch.ones_like(states[0])
    fused = fused_norm(ranks)
    return lambda: fused(states, residual, weight)


def _all_reduce(states: Tensor) -> None:
    dist.all_reduce(states)


def _bandwidth(ranks: Ranks, item: Bandwidth) -> Timings:
    dtype = getattr(torch, item.dtype)
    rows = padded(item.tokens, ranks.size)
    whole = torch.zeros(rows, item.hidden, device=ranks.device, dtype=dtype)
    part = rows // ranks.size
    own = whole[:part].clone()
    world: Group = tuple(range(ranks.size))
    shares: Sequence[int] = [part] * ranks.size
    ranks.say(f"timing {item.collective} of {rows} tokens")
    wrapped: dict[Collective, Callable[[], object]] = {
        "all-reduce": lambda: ranks.all_reduce(whole, world),
        "all-gather": lambda: ranks.all_gather(own, world, shares),
        "reduce-scatter": lambda: ranks.reduce_scatter(whole, world, shares),
    }
    bare = _bare(item.collective, whole)
    return timings({"wrapped": wrapped[item.collective], "bare": bare}, ranks.device)


def _floor(ranks: Ranks, item: Floor) -> Timings:
    ranks.say(f"timing the floor of {item.step}")
    dtype = getattr(torch, item.dtype)

    def states(rows: int, hidden: int) -> Tensor:
        return torch.zeros(rows, hidden, device=ranks.device, dtype=dtype)

    largest = states(padded(item.rows, ranks.size), item.hidden)
    if item.step == "fused norm":
        empty, large = _fused_norm(ranks, states(1, item.hidden)), _fused_norm(ranks, largest)
    else:
        empty, large = _bare(item.step, states(ranks.size, 1)), _bare(item.step, largest)
    # one after the other: after a long one, ranks arrive apart and a short one waits for the last
    return {
        **timings({"empty": empty}, ranks.device, choose=min),
        **timings({"large": large}, ranks.device, choose=min),
    }


def _bare(collective: Collective, whole: Tensor) -> Callable[[], object]:
    """The backend's own call on `whole` [rows, H], whose rows divide among the ranks."""
    own = whole[: len(whole) // dist.get_world_size()].clone()
    match collective:
        case "all-reduce":
            return lambda: _all_reduce(whole)
        case "all-gather":
            return lambda: bare_all_gather(torch.empty_like(whole), own)
        case "reduce-scatter":
            return lambda: bare_reduce_scatter(torch.empty_like(own), whole)


def _share(ranks: Ranks, item: Share) -> Timings:
    """The layer, its experts and its two collectives, each by itself."""
    layer, moe = _layer(ranks, item)
    dtype = getattr(torch, item.dtype)
    # summed in place each time: zeros stay what they are, and the residual is what routes
    partial = torch.zeros(item.tokens, item.hidden + 1, device=ranks.device, dtype=dtype)
    residual = torch.randn(item.tokens, item.hidden, device=ranks.device, dtype=dtype)
    world: Group = tuple(range(ranks.size))

    def whole() -> None:
        states, new_residual = layer.prepare_mlp(partial, residual)
        layer.prepare_attn(layer.forward(states, announced=False), new_residual, announced=False)

    states, _ = layer.prepare_mlp(partial, residual)
    rows = states[:, :-1].contiguous()
    choice = moe.block.choose(rows)

    def collectives() -> None:
        # attention's sum and the block's
        ranks.all_reduce(partial, world)
        ranks.all_reduce(partial, world)

    ranks.say(f"timing a layer of {item.tokens} tokens")
    return timings(
        {
            "layer": whole,
            "experts": lambda: moe.routed(rows, choice.ids, choice.weights),
            "collectives": collectives,
        },
        ranks.device,
    )


def _layer(ranks: Ranks, item: Share) -> tuple[Layer, MoE]:
    """A pure-TP layer of realistic size with random weights; nothing is counted in it."""
    dtype = getattr(torch, item.dtype)
    spec = replace(SPECS[item.model], hidden=item.hidden, intermediate=item.intermediate)
    shard = Shard(
        tp_rank=ranks.rank, tp_size=ranks.size, shared_rank=ranks.rank, shared_size=ranks.size
    )
    block = MoEBlock(spec, _random_weights(spec, dtype, ranks.device), shard)
    subject = subjects((item.model,))[0]
    deployment = Deployment(config=MoeConfig(tp_size=ranks.size))
    moe = MoE(
        ranks=ranks,
        layout=deployment.layout,
        block=block,
        witness=Witness(tokens=0, ranks=ranks.size),
        rows=(item.tokens,),
        routed=flashinfer_experts(block, shard)
        if item.kernels.experts == "flashinfer"
        else block.routed,
        dispatch=standard,
    )
    layer = Layer(
        case=Case(subject=subject, deployment=deployment, guard="helper", dtype=item.dtype),
        ranks=ranks,
        plan=TokenPlan(ids=((0,) * item.tokens,), total=0),
        produce=moe,
        norm_weight=torch.ones(item.hidden, device=ranks.device, dtype=dtype),
    )
    return layer, moe


def _random_weights(spec: ModelSpec, dtype: torch.dtype, device: torch.device) -> Weights:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, dtype=dtype).div(shape[-1] ** 0.5)

    router = draw(spec.experts, spec.hidden)
    bias = draw(1, spec.experts)[0] if spec.bias else None
    return weights_of(spec, draw, router=router, bias=bias)
