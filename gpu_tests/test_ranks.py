"""`pytest gpu_tests`: every case on one, two and four ranks, and the slow ones on eight.

`GPU_TESTS_BACKEND=nccl` runs the same on GPUs; worlds that need more of them are skipped.
"""

import os

import pytest

from gpu_tests.cases import DTYPES
from gpu_tests.job import check_world, choose_kernels, on_this_machine
from gpu_tests.plan import cases
from verify.errors import VerifyError

BACKEND = os.environ.get("GPU_TESTS_BACKEND", "gloo")
DEADLINE = 120.0

pytestmark = [pytest.mark.ranks, pytest.mark.xdist_group("ranks"), pytest.mark.timeout(1800)]


def problems(*, world_size: int, guard: str = "helper") -> list[str]:
    """What is not as the ledger says, over all cases; one start of the ranks."""
    try:
        check_world(world_size, BACKEND, local_ranks=world_size)
    except VerifyError as error:
        pytest.skip(str(error))
    kernels, _ = choose_kernels(experts=None, norm=None, backend=BACKEND)
    todo = list(cases(world_size=world_size, guard=guard, dtypes=DTYPES, kernels=kernels))
    outcomes = list(
        on_this_machine(todo, world_size=world_size, backend=BACKEND, deadline=DEADLINE)
    )
    assert len(outcomes) == len(todo)
    return [f"{outcome.case.title}: {outcome.problem}" for outcome in outcomes if outcome.problem]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_and_ledger_agree(world_size: int) -> None:
    assert problems(world_size=world_size) == []


def test_ranks_and_ledger_agree_on_the_original_guards() -> None:
    assert problems(world_size=2, guard="oracle") == []


@pytest.mark.parametrize("world_size", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_layers_that_follow_the_plan_are_exact(world_size: int) -> None:
    assert problems(world_size=world_size, guard="plan") == []


@pytest.mark.slow
def test_ranks_and_ledger_agree_on_eight() -> None:
    assert problems(world_size=8) == []
