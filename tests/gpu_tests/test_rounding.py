"""The error model against what low precision really does."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpu_tests import rounding
from gpu_tests.rounding import TOLERANCE, Noisy, Precision

DTYPES = (torch.bfloat16, torch.float32)

OPERATIONS = {
    "linear": (
        lambda x, w: x @ w.T,
        lambda x, w, p: rounding.linear(x, w.value, p),
    ),
    "add": (lambda x, w: x + w, rounding.add),
    "swiglu": (lambda x, w: torch.nn.functional.silu(x) * w, rounding.swiglu),
    "scale": (lambda x, w: x * w, rounding.scale),
    "total": (
        lambda x, w: ((x[0] + x[1]) + (w[0] + w[1])).unsqueeze(0),
        lambda x, w, p: rounding.total(
            rounding.stack([Noisy.exact(row.unsqueeze(0)) for row in (*x.value[:2], *w.value[:2])]),
            p,
        ),
    ),
    "rms_norm": (
        lambda x, w: torch.nn.functional.rms_norm(x, x.shape[-1:], w[0], 1e-6),
        lambda x, w, p: rounding.rms_norm(x, w.value[0], 1e-6, p),
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_operation_stays_inside_its_tolerance(name, dtype, seed):
    low, modelled = OPERATIONS[name]
    generator = torch.Generator().manual_seed(seed)
    x, w = (torch.randn(16, 16, generator=generator).to(dtype) for _ in range(2))
    answer = modelled(Noisy.exact(x), Noisy.exact(w), Precision.of(dtype))
    measured = (low(x, w).double() - answer.value).abs()
    assert (measured <= TOLERANCE * answer.noise + 1e-300).all()


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_tolerance_is_not_loose(name):
    """Of many results some come within a factor of 40 of it: it follows what really happens."""
    low, modelled = OPERATIONS[name]
    generator = torch.Generator().manual_seed(1)
    x, w = (torch.randn(64, 64, generator=generator).to(torch.bfloat16) for _ in range(2))
    answer = modelled(Noisy.exact(x), Noisy.exact(w), Precision.of(torch.bfloat16))
    measured = (low(x, w).double() - answer.value).abs()
    assert (measured / (TOLERANCE * answer.noise)).nan_to_num().max() > 1 / 40


def test_noise_of_inputs_is_passed_on():
    clean = Noisy.exact(torch.ones(2, 2))
    noisy = Noisy(value=clean.value, noise=torch.full((2, 2), 0.5).double())
    p = Precision.of(torch.float32)
    weight, gain = torch.eye(2).double(), torch.full((2,), 2.0).double()
    for quiet, loud in (
        (rounding.linear(clean, weight, p), rounding.linear(noisy, weight, p)),
        (rounding.add(clean, clean, p), rounding.add(noisy, clean, p)),
        (rounding.swiglu(clean, clean, p), rounding.swiglu(clean, noisy, p)),
        (rounding.scale(clean, clean, p), rounding.scale(clean, noisy, p)),
        (rounding.rms_norm(clean, gain, 0.0, p), rounding.rms_norm(noisy, gain, 0.0, p)),
        (rounding.total(clean, p), rounding.total(noisy, p)),
    ):
        assert loud.noise.max() > 1000 * quiet.noise.max()
        assert torch.equal(loud.value, quiet.value)
