"""A world of one needs no process: every block is exact there, or the block itself is wrong."""

from dataclasses import replace

import pytest
import torch

from gpu_tests.block import MoEBlock
from gpu_tests.cases import DTYPES
from gpu_tests.outcome import Outcome
from gpu_tests.plan import cases
from gpu_tests.ranks import Ranks, StepError
from gpu_tests.work import run_case


def silent(_: str) -> None:
    pass


ALONE = Ranks(rank=0, size=1, device=torch.device("cpu"), say=silent, call=silent)
CASES = list(cases(world_size=1, dtypes=DTYPES))


@pytest.mark.parametrize("case", CASES, ids=[case.title for case in CASES])
def test_one_rank_is_exact(case):
    outcome = Outcome.of(case, [run_case(ALONE, case)])
    assert outcome.kind == "exact"
    assert outcome.problem == ""


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_block_that_computes_wrong_is_noticed(monkeypatch, dtype):
    """Experts one percent too large: counts stay right, values do not (bfloat16: ten percent)."""
    case = next(case for case in CASES if case.dtype == dtype)
    right = MoEBlock.routed
    factor = 1.01 if dtype == "float32" else 1.1

    def slightly_wrong(self, x, ids, weights):
        return factor * right(self, x, ids, weights)

    monkeypatch.setattr(MoEBlock, "routed", slightly_wrong)
    outcome = Outcome.of(case, [run_case(ALONE, case)])
    assert outcome.kind == "exact"
    assert outcome.problem.startswith("values deviate from")


def test_sizes_that_do_not_fit_are_said():
    pair = replace(ALONE, size=2)
    with pytest.raises(StepError, match="reduce-scatter of 3 sizes over 2 ranks"):
        pair.reduce_scatter(torch.zeros(4, 1), (0, 1), [1, 1, 2])
    with pytest.raises(StepError, match=r"reduce-scatter of 4 rows into sizes \[1, 2\]"):
        pair.reduce_scatter(torch.zeros(4, 1), (0, 1), [1, 2])


def test_a_group_of_one_changes_nothing():
    rows = torch.arange(6.0).view(3, 2)
    assert torch.equal(ALONE.all_reduce(rows, (0,)), rows)
    assert torch.equal(ALONE.all_gather(rows, (0,), [3]), rows)
    assert torch.equal(ALONE.reduce_scatter(rows, (0,), [3]), rows)
    assert ALONE.each(7, (0,)) == [7]
