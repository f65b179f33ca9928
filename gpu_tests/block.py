"""One rank's part of a mixture-of-experts block or of a dense MLP, and the whole's weights."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpu_tests.mlp import MLPWeights, SwiGLU, draw_mlp, frozen
from gpu_tests.routing import Routing, route
from gpu_tests.specs import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A whole block's weights. E experts, H hidden, I intermediate.

    router [E, H], bias [E], gate and up [E, I, H], down [E, H, I], shared_score [1, H]. What the
    model lacks is None.
    """

    router: Tensor
    bias: Tensor | None
    gate: Tensor
    up: Tensor
    down: Tensor
    shared: MLPWeights | None
    shared_score: Tensor | None

    def to(self, dtype: torch.dtype) -> "Weights":
        """The same weights rounded to `dtype`."""
        present = {name: weight for name, weight in vars(self).items() if weight is not None}
        return replace(self, **{name: weight.to(dtype) for name, weight in present.items()})


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Which part of a block a rank holds: experts by EP rank, width by MoE-TP rank, shared width.

    `shared_size` 1 means the shared experts are held whole.
    """

    ep_rank: int = 0
    ep_size: int = 1
    tp_rank: int = 0
    tp_size: int = 1
    shared_rank: int = 0
    shared_size: int = 1

    @property
    def routed_name(self) -> tuple[int, int]:
        """Ranks with the same name hold copies of the same routed experts."""
        return (self.ep_rank, self.tp_rank)

    @property
    def shared_name(self) -> int:
        """Ranks with the same name hold copies of the same part of the shared experts."""
        return self.shared_rank

    def experts(self, count: int) -> slice:
        """The global experts held here."""
        return _part(count, self.ep_rank, self.ep_size)

    def width(self, intermediate: int) -> slice:
        """The part of every expert's intermediate dimension held here."""
        return _part(intermediate, self.tp_rank, self.tp_size)

    def shared_width(self, intermediate: int) -> slice:
        """The part of the shared experts' intermediate dimension held here."""
        return _part(intermediate, self.shared_rank, self.shared_size)


class MoEBlock(nn.Module):
    """Router, SwiGLU experts and shared experts, cut to one rank's shard.

    `routed` and `shared` return this rank's *partial* sums [tokens, H]; adding them up over the
    ranks is the business of whoever calls.
    """

    def __init__(self, spec: ModelSpec, weights: Weights, shard: Shard) -> None:
        super().__init__()
        self.spec = spec
        self.owned = shard.experts(spec.experts)
        width = shard.width(spec.intermediate)
        self.router = frozen(weights.router)
        self.bias = None if weights.bias is None else frozen(weights.bias)
        self.gate = frozen(weights.gate[self.owned, width])
        self.up = frozen(weights.up[self.owned, width])
        self.down = frozen(weights.down[self.owned, :, width])
        self.shared_score: nn.Parameter | None = None
        self.shared_experts: SwiGLU | None = None
        if weights.shared is not None:
            width = shard.shared_width(weights.shared.intermediate)
            self.shared_experts = SwiGLU(weights.shared, width)
        if weights.shared_score is not None:
            self.shared_score = frozen(weights.shared_score)

    def choose(self, x: Tensor) -> Routing:
        """Experts and weights for each row of `x`, computed in at least float32."""
        wide = torch.promote_types(x.dtype, torch.float32)
        bias = None if self.bias is None else self.bias.to(wide)
        return route(x.to(wide) @ self.router.to(wide).T, bias, self.spec)

    def routed(self, x: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        """The experts held here on `x` [tokens, H], weighted; zero for tokens routed elsewhere."""
        everywhere = weights.new_zeros(len(x), self.spec.experts).scatter(1, ids, weights)
        scale = everywhere[:, self.owned].T.unsqueeze(-1)
        if self.spec.weight_on_input:
            states = (x * scale).to(x.dtype)
        else:
            states = x.expand(len(scale), *x.shape)
        inner = functional.silu(states @ self.gate.mT) * (states @ self.up.mT)
        outputs = inner @ self.down.mT
        if self.spec.weight_on_input:
            return outputs.sum(0)
        return (outputs * scale).sum(0).to(x.dtype)

    def shared(self, x: Tensor) -> Tensor | None:
        """The shared experts' part on `x` [tokens, H]; None in a model without them."""
        if self.shared_experts is None:
            return None
        output: Tensor = self.shared_experts(x)
        if self.shared_score is None:
            return output
        return torch.sigmoid(x @ self.shared_score.T) * output


@lru_cache(maxsize=64)
def whole_weights(spec: ModelSpec) -> Weights:
    """The block's weights in float64, the same on every rank and machine."""
    draw = _drawing(spec)
    # orthogonal rows, so that a hidden state can be made for any choice of experts
    router = 2 * torch.linalg.qr(draw(spec.hidden, spec.hidden)).Q[: spec.experts]
    bias = 0.1 * draw(1, spec.experts)[0] if spec.bias else None
    return weights_of(spec, draw, router=router, bias=bias)


@lru_cache(maxsize=8)
def dense_weights(spec: ModelSpec) -> MLPWeights:
    """The weights of the model's dense MLP, likewise."""
    return draw_mlp(_drawing(spec), hidden=spec.hidden, intermediate=spec.intermediate)


def weights_of(
    spec: ModelSpec, draw: Callable[..., Tensor], *, router: Tensor, bias: Tensor | None
) -> Weights:
    """The model's weights, experts' and shared experts' by `draw`, which is given a shape."""
    experts, hidden, inner = spec.experts, spec.hidden, spec.intermediate
    return Weights(
        router=router,
        bias=bias,
        gate=draw(experts, inner, hidden),
        up=draw(experts, inner, hidden),
        down=draw(experts, hidden, inner),
        shared=draw_mlp(draw, hidden=hidden, intermediate=spec.shared * inner)
        if spec.shared
        else None,
        shared_score=draw(1, hidden) if spec.shared_gated else None,
    )


def expert_ranges(experts: int, ranks: int) -> list[slice]:
    """The experts that each of `ranks` expert-parallel ranks holds."""
    return [_part(experts, rank, ranks) for rank in range(ranks)]


def _part(length: int, rank: int, size: int) -> slice:
    return slice(rank * length // size, (rank + 1) * length // size)


def _drawing(spec: ModelSpec) -> Callable[..., Tensor]:
    # not hash(): that differs between processes
    generator = torch.Generator().manual_seed(zlib.crc32(repr(spec).encode()))

    def draw(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return values.div(shape[-1] ** 0.5)

    return draw
