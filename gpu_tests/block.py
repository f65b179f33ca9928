"""One rank's part of a mixture-of-experts block: router, experts, shared experts."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpu_tests.routing import Routing, route
from gpu_tests.specs import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A whole block's weights. E experts, H hidden, I intermediate, S shared intermediate.

    router [E, H], bias [E], gate and up [E, I, H], down [E, H, I]; shared_gate and shared_up
    [S, H], shared_down [H, S], shared_score [1, H]. What the model lacks is None.
    """

    router: Tensor
    bias: Tensor | None
    gate: Tensor
    up: Tensor
    down: Tensor
    shared_gate: Tensor | None
    shared_up: Tensor | None
    shared_down: Tensor | None
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
        self.router = _frozen(weights.router)
        self.bias = None if weights.bias is None else _frozen(weights.bias)
        self.gate = _frozen(weights.gate[self.owned, width])
        self.up = _frozen(weights.up[self.owned, width])
        self.down = _frozen(weights.down[self.owned, :, width])
        self.shared_score: nn.Parameter | None = None
        if spec.shared:
            assert weights.shared_gate is not None
            assert weights.shared_up is not None
            assert weights.shared_down is not None
            width = shard.shared_width(len(weights.shared_gate))
            self.shared_gate = _frozen(weights.shared_gate[width])
            self.shared_up = _frozen(weights.shared_up[width])
            self.shared_down = _frozen(weights.shared_down[:, width])
        if weights.shared_score is not None:
            self.shared_score = _frozen(weights.shared_score)

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
        if not self.spec.shared:
            return None
        inner = functional.silu(x @ self.shared_gate.T) * (x @ self.shared_up.T)
        output = inner @ self.shared_down.T
        if self.shared_score is None:
            return output
        return torch.sigmoid(x @ self.shared_score.T) * output


@lru_cache(maxsize=64)
def whole_weights(spec: ModelSpec) -> Weights:
    """The model's weights in float64, the same on every rank and machine."""
    # not hash(): that differs between processes
    generator = torch.Generator().manual_seed(zlib.crc32(spec.model.encode()))

    def draw(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return values.div(shape[-1] ** 0.5)

    # orthogonal rows, so that a hidden state can be made for any choice of experts
    router = 2 * torch.linalg.qr(draw(spec.hidden, spec.hidden)).Q[: spec.experts]
    bias = 0.1 * draw(1, spec.experts)[0] if spec.bias else None
    return weights_of(spec, draw, router=router, bias=bias)


def weights_of(
    spec: ModelSpec, draw: Callable[..., Tensor], *, router: Tensor, bias: Tensor | None
) -> Weights:
    """The model's weights, experts' and shared experts' by `draw`, which is given a shape."""
    experts, hidden, inner = spec.experts, spec.hidden, spec.intermediate
    shared = spec.shared * inner
    return Weights(
        router=router,
        bias=bias,
        gate=draw(experts, inner, hidden),
        up=draw(experts, inner, hidden),
        down=draw(experts, hidden, inner),
        shared_gate=draw(shared, hidden) if shared else None,
        shared_up=draw(shared, hidden) if shared else None,
        shared_down=draw(hidden, shared) if shared else None,
        shared_score=draw(1, hidden) if spec.shared_gated else None,
    )


def _part(length: int, rank: int, size: int) -> slice:
    return slice(rank * length // size, (rank + 1) * length // size)


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.contiguous(), requires_grad=False)
