"""Float64 values with how far a computation in another precision is expected to be off.

Probabilistic running error analysis (Higham and Mary, 2019): rounding errors are taken as
independent, each as large as it can be, and every operation passes its inputs' noise on and adds
its own, term by term of every sum. `TOLERANCE` standard deviations are what a comparison allows.
The tolerance thus follows from dtype, depth and order of summation, not from what happened to
pass. (Worst-case analysis of the same layers in bfloat16 allows errors larger than the values.)
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

TOLERANCE = 4.0

# |silu'| and |sigmoid'| never exceed these
SILU_SLOPE = 1.1
SIGMOID_SLOPE = 0.25


@dataclass(frozen=True, kw_only=True)
class Precision:
    """`unit` is the rounding error of storing a value, `sum_unit` that of one addition in a dot."""

    unit: float
    sum_unit: float

    @classmethod
    def of(cls, dtype: torch.dtype) -> "Precision":
        """Values are stored in `dtype`; dot products accumulate in float32 at least."""
        wide = torch.promote_types(dtype, torch.float32)
        return cls(unit=torch.finfo(dtype).eps / 2, sum_unit=torch.finfo(wide).eps / 2)


@dataclass(frozen=True, kw_only=True)
class Noisy:
    """`value` and its `noise` (one standard deviation), both float64 and of the same shape."""

    value: Tensor
    noise: Tensor

    @classmethod
    def exact(cls, value: Tensor) -> "Noisy":
        """A value that every precision starts from."""
        wide = value.double()
        return cls(value=wide, noise=torch.zeros_like(wide))


def linear(x: Noisy, weight: Tensor, p: Precision) -> Noisy:
    """`x @ weight.T`; leading dimensions broadcast."""
    value = x.value @ weight.mT
    # each of n additions rounds a partial sum of about the size of the terms so far
    summing = weight.shape[-1] * p.sum_unit**2 * x.value.square()
    passed_on = (x.noise.square() + summing) @ weight.square().mT
    return _noisy(value, passed_on + _stored(value, p))


def add(a: Noisy, b: Noisy, p: Precision) -> Noisy:
    """The sum, rounded once."""
    value = a.value + b.value
    return _noisy(value, a.noise.square() + b.noise.square() + _stored(value, p))


def swiglu(gate: Noisy, up: Noisy, p: Precision) -> Noisy:
    """`silu(gate) * up`, rounded twice."""
    active = functional.silu(gate.value)
    value = active * up.value
    through_gate = (SILU_SLOPE * gate.noise * up.value).square()
    through_up = (active * up.noise).square()
    return _noisy(value, through_gate + through_up + 2 * _stored(value, p))


def scale(x: Noisy, factor: Noisy, p: Precision) -> Noisy:
    """`x * factor`, rounded once."""
    value = x.value * factor.value
    passed_on = (x.noise * factor.value).square() + (x.value * factor.noise).square()
    return _noisy(value, passed_on + _stored(value, p))


def rms_norm(x: Noisy, weight: Tensor, epsilon: float, p: Precision) -> Noisy:
    """`weight * x / rms(x)`, rounded twice; the root mean square moves by its terms' mean noise."""
    root = (x.value.square().mean(-1, keepdim=True) + epsilon).sqrt()
    value = weight * x.value / root
    shift = (x.value * x.noise).square().sum(-1, keepdim=True).sqrt() / x.value.shape[-1] / root**2
    passed_on = (weight * x.noise / root).square() + (value * shift).square()
    return _noisy(value, passed_on + 2 * _stored(value, p))


def total(parts: Noisy, p: Precision) -> Noisy:
    """The sum over the first dimension, in any order, every partial sum rounded."""
    additions = (len(parts.value) - 1) * p.unit**2 * parts.value.square().sum(0)
    return _noisy(parts.value.sum(0), parts.noise.square().sum(0) + additions)


def stack(parts: list[Noisy]) -> Noisy:
    """The parts along a new first dimension."""
    return Noisy(
        value=torch.stack([part.value for part in parts]),
        noise=torch.stack([part.noise for part in parts]),
    )


def _stored(value: Tensor, p: Precision) -> Tensor:
    """The variance of rounding `value` once."""
    return (p.unit * value).square()


def _noisy(value: Tensor, variance: Tensor) -> Noisy:
    return Noisy(value=value, noise=variance.sqrt())
