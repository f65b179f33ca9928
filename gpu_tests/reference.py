"""The same layers on one rank in float64: what every rank's answer is compared with.

Written independently of the block under test, with each shard's partial sum kept apart, so that a
wrong answer can be explained as the partial sums it counts twice or not at all.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from gpu_tests.block import Shard, Weights, dense_weights, whole_weights
from gpu_tests.mlp import MLPWeights
from gpu_tests.rounding import (
    SIGMOID_SLOPE,
    TOLERANCE,
    Noisy,
    Precision,
    add,
    linear,
    rms_norm,
    scale,
    stack,
    swiglu,
    total,
)
from gpu_tests.routing import route
from gpu_tests.specs import EPSILON, ModelSpec


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What enters the first layer. T tokens, A attention-TP ranks.

    `parts` [A, T, H] are the partial sums of attention's output, `residual` is [T, H].
    """

    parts: Tensor
    residual: Tensor


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The reference's answer. `routed` and `shared` hold each shard's partial sum [S, T, H].

    `residual` is the first layer's before its MoE output is added, `completed` after, `final`
    what leaves the second layer, all [T, H].
    """

    residual: Noisy
    routed: Noisy
    shared: Noisy | None
    completed: Noisy
    final: Noisy
    unit: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """Two layers' weights at one precision, widened back to float64, and the shards to cut them.

    A dense layer's `weights` are an MLP's.
    """

    spec: ModelSpec
    weights: Weights | MLPWeights
    attention: Tensor
    norm: Tensor
    dtype: torch.dtype
    shards: tuple[Shard, ...]

    @property
    def precision(self) -> Precision:
        """How `dtype` rounds."""
        return Precision.of(self.dtype)


@lru_cache(maxsize=256)
def model(spec: ModelSpec, dtype: torch.dtype, shards: tuple[Shard, ...]) -> Model:
    """The model as `dtype` holds it. `attention` [H, H] stands for the second layer's attention."""
    generator = torch.Generator().manual_seed(spec.hidden)
    attention = torch.randn(spec.hidden, spec.hidden, generator=generator, dtype=torch.float64)
    norm = 1 + 0.1 * torch.randn(spec.hidden, generator=generator, dtype=torch.float64)
    weights = dense_weights(spec) if spec.dense else whole_weights(spec)
    return Model(
        spec=spec,
        weights=weights.to(dtype).to(torch.float64),
        attention=(attention / spec.hidden**0.5 / 2).to(dtype).double(),
        norm=norm.to(dtype).double(),
        dtype=dtype,
        shards=shards,
    )


def solve(m: Model, inputs: Inputs) -> tuple[Truth, Tensor]:
    """Both layers, and how safely each token is routed: its margin over the score's noise [T]."""
    p = m.precision
    attended = total(stack([Noisy.exact(part) for part in inputs.parts]), p)
    residual = add(attended, Noisy.exact(inputs.residual), p)
    routed, shared, safety = _block(m, residual, m.shards)
    completed = add(residual, _complete(routed, shared, m.shards, p), p)
    attended = linear(rms_norm(completed, m.norm, EPSILON, p), m.attention, p)
    # every attention rank stores its part and every addition of parts rounds
    several = Precision(unit=ATTENTION_ROUNDINGS * p.unit, sum_unit=p.sum_unit)
    second = add(attended, completed, several)
    routed_again, shared_again, safety_again = _block(m, second, (Shard(),))
    final = add(second, _complete(routed_again, shared_again, (Shard(),), several), several)
    truth = Truth(
        residual=residual,
        routed=routed,
        shared=shared,
        completed=completed,
        final=final,
        unit=p.unit,
    )
    return truth, torch.minimum(safety, safety_again)


def draw_inputs(m: Model, *, tokens: int, attention_ranks: int) -> tuple[Inputs, Truth]:
    """Inputs for T tokens that no rounding routes differently, and the reference's answer.

    Each token is given experts first and then a hidden state that asks for them; tokens never meet
    in these layers, so one that comes out on the edge is drawn again by itself. What can bring it
    there is the first layer's output, which the second layer's router sees: beside a residual that
    grows from draw to draw it vanishes, and the margin that the first layer has by construction is
    left. Raises `PreparationError` where even that is no margin.
    """
    generator = torch.Generator().manual_seed(tokens * 64 + attention_ranks)
    inputs = _draw(m, tokens, attention_ranks, generator, size=RESIDUAL_SIZE)
    for draw in range(MAX_DRAWS):
        truth, safety = solve(m, inputs)
        unsafe = safety < 1
        if not unsafe.any():
            return inputs, truth
        size = RESIDUAL_SIZE * (1 + draw * GROWTH)
        again = _draw(m, tokens, attention_ranks, generator, size=size)
        inputs.parts[:, unsafe] = again.parts[:, unsafe]
        inputs.residual[unsafe] = again.residual[unsafe]
    raise PreparationError(
        f"{m.spec.hidden} wide, {m.dtype}: no safely routed tokens in {MAX_DRAWS} draws"
    )


class PreparationError(Exception):
    """A case without inputs that every precision routes alike: there is nothing to compare."""


def _draw(
    m: Model, tokens: int, attention_ranks: int, generator: torch.Generator, *, size: float
) -> Inputs:
    shape = (attention_ranks, tokens, m.spec.hidden)
    parts = torch.randn(*shape, generator=generator, dtype=torch.float64)
    parts = _as_stored(parts / attention_ranks**0.5, m)
    if isinstance(m.weights, MLPWeights):
        states = torch.randn(tokens, m.spec.hidden, generator=generator, dtype=torch.float64)
        return Inputs(parts=parts, residual=_as_stored(size * states, m))
    wanted = torch.stack([_wanted_logits(m.spec, generator) for _ in range(tokens)])
    # the router's rows are orthogonal, so its transpose turns logits into hidden states
    router = m.weights.router
    states = wanted @ router / router[0].square().sum()
    residual = _as_stored(size * states / m.norm - parts.sum(0), m)
    return Inputs(parts=parts, residual=residual)


# large beside the MoE output, so that the second layer routes as safely as the first
RESIDUAL_SIZE = 6.0
ATTENTION_ROUNDINGS = 4
# a token is drawn again once in twenty at worst: beyond a few draws the residual must help
GROWTH = 0.25
MAX_DRAWS = 40


def _wanted_logits(spec: ModelSpec, generator: torch.Generator) -> Tensor:
    """Router logits that choose `top_k` random experts, within the allowed number of groups."""
    size = spec.experts // spec.groups
    allowed = torch.randperm(spec.groups, generator=generator)[: spec.group_top_k]
    # the same number in each allowed group, so that each of those groups beats the others
    each = spec.top_k // len(allowed)
    chosen = torch.cat(
        [group * size + torch.randperm(size, generator=generator)[:each] for group in allowed]
    )
    spread = 0.75 + 0.5 * torch.rand(spec.experts, generator=generator, dtype=torch.float64)
    return spread * torch.full_like(spread, -1).scatter(0, chosen, 1.0)


def _as_stored(values: Tensor, m: Model) -> Tensor:
    return values.to(m.dtype).double()


def _block(
    m: Model, residual: Noisy, shards: tuple[Shard, ...]
) -> tuple[Noisy, Noisy | None, Tensor]:
    """Each shard's routed and shared partial sums [S, T, H], and the routing's safety [T]."""
    x = rms_norm(residual, m.norm, EPSILON, m.precision)
    w = m.weights
    if isinstance(w, MLPWeights):
        parts = [_mlp(x, w, shard.width(w.intermediate), m.precision) for shard in shards]
        return stack(parts), None, x.value.new_full((len(x.value),), float("inf"))
    logits = linear(x, w.router, _accumulating(m.precision))
    choice = route(logits.value, w.bias, m.spec)
    safety = choice.margin / (TOLERANCE * choice.slope * logits.noise.amax(-1))
    factor = torch.zeros_like(logits.value).scatter(1, choice.ids, choice.weights)
    # a weight moves by its own logit's share, and again when all are renormalised
    weight = Noisy(value=factor, noise=factor * 2**0.5 * logits.noise)
    routed = stack([_routed(m, w, x, weight, shard) for shard in shards])
    if w.shared is None:
        return routed, None, safety
    shared = stack([_shared(w, w.shared, x, shard, m.precision) for shard in shards])
    return routed, shared, safety


def _routed(m: Model, w: Weights, x: Noisy, weight: Noisy, shard: Shard) -> Noisy:
    """One shard's experts on all tokens, [T, H]; the first dimension inside is experts."""
    p = m.precision
    experts, width = shard.experts(m.spec.experts), shard.width(m.spec.intermediate)
    factor = Noisy(
        value=weight.value[:, experts].T.unsqueeze(-1),
        noise=weight.noise[:, experts].T.unsqueeze(-1),
    )
    states = scale(x, factor, p) if m.spec.weight_on_input else x
    inner = swiglu(
        linear(states, w.gate[experts, width], p), linear(states, w.up[experts, width], p), p
    )
    outputs = linear(inner, w.down[experts][:, :, width], p)
    if not m.spec.weight_on_input:
        outputs = scale(outputs, factor, p)
    return total(outputs, p)


def _shared(w: Weights, mlp: MLPWeights, x: Noisy, shard: Shard, p: Precision) -> Noisy:
    """One shard of the shared experts on all tokens, [T, H]."""
    output = _mlp(x, mlp, shard.shared_width(mlp.intermediate), p)
    if w.shared_score is None:
        return output
    score = linear(x, w.shared_score, p)
    gate = Noisy(value=torch.sigmoid(score.value), noise=SIGMOID_SLOPE * score.noise + p.unit)
    return scale(output, gate, p)


def _mlp(x: Noisy, mlp: MLPWeights, width: slice, p: Precision) -> Noisy:
    """One slice of an MLP on all tokens, [T, H]."""
    inner = swiglu(linear(x, mlp.gate[width], p), linear(x, mlp.up[width], p), p)
    return linear(inner, mlp.down[:, width], p)


def _complete(
    routed: Noisy, shared: Noisy | None, shards: tuple[Shard, ...], p: Precision
) -> Noisy:
    """What one rank would hold: every shard once, whoever holds copies of it."""
    whole = total(_once(routed, [shard.routed_name for shard in shards]), p)
    if shared is None:
        return whole
    return add(whole, total(_once(shared, [shard.shared_name for shard in shards]), p), p)


def _once(parts: Noisy, names: list[Hashable]) -> Noisy:
    """The first part of each name."""
    first = [place for place, name in enumerate(names) if name not in names[:place]]
    return Noisy(value=parts.value[first], noise=parts.noise[first])


def _accumulating(p: Precision) -> Precision:
    """Results stay as wide as the sums are: routers compute in float32."""
    return Precision(unit=p.sum_unit, sum_unit=p.sum_unit)
