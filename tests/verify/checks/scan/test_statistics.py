"""A norm's squares over split columns are summed once."""

from collections.abc import Callable
from typing import Any

import pytest

from verify.checks.scan.scan import ScanResult

NORM = """
class Norm:
    def forward(self, q, k):
        sum_sq = rms_sumsq_serial(q, k)
        if self.tp_world > 1:
            sum_sq = tensor_model_parallel_all_reduce(sum_sq)
        return rms_apply_serial(q, k, sum_sq, self.tp_world, self.eps)
"""
VARIANCE = """
class Norm:
    def forward(self, x):
        variance = x.pow(2).mean(dim=-1, keepdim=True)
        if self.tp_world > 1:
            variance = tensor_model_parallel_all_reduce(variance) / self.tp_world
        return x * torch.rsqrt(variance)
"""
WHOLE = """
class Norm:
    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True))
"""
SUM = "tensor_model_parallel_all_reduce(sum_sq)"


def rules(scanned: Callable[..., ScanResult], model: str) -> list[str]:
    return [one.rule for one in scanned(model).findings]


@pytest.mark.parametrize("model", [NORM, VARIANCE, WHOLE], ids=["squares", "mean", "whole"])
def test_sound_norm(scanned: Callable[..., ScanResult], model: str) -> None:
    assert rules(scanned, model) == []


@pytest.mark.parametrize(
    ("model", "change", "rule"),
    [
        (NORM, (f"= {SUM}", "= sum_sq"), "lost-sum"),
        (NORM, (f"= {SUM}", f"= {SUM.replace('sum_sq', SUM)}"), "reduced-twice"),
        (NORM, ("if self.tp_world > 1", "if not (self.tp_world > 1)"), "lost-sum"),
        (NORM, ("if self.tp_world > 1", "if False"), "lost-sum"),
        (VARIANCE, ("tensor_model_parallel_all_reduce(variance)", "variance"), "lost-sum"),
    ],
)
def test_norm_that_is_not(
    scanned: Callable[..., ScanResult],
    sample: Any,
    model: str,
    change: tuple[str, str],
    rule: str,
) -> None:
    broken = sample.changed(model, *change)
    assert rules(scanned, broken) == [rule]
    assert rules(scanned, broken.replace("Norm", "Other")) == [rule]


def test_sum_that_is_made_also_of_one_rank(scanned: Callable[..., ScanResult], sample: Any) -> None:
    assert rules(scanned, sample.changed(NORM, "if self.tp_world > 1", "if True")) == []
