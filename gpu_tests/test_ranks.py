"""`pytest gpu_tests`: every case on one and two ranks, and each way to communicate on four.

What takes minutes is `slow`: every case on four ranks, all of the plan's layers, and eight ranks;
`.ci/run` has all of it but the eight. `GPU_TESTS_BACKEND=nccl` runs the same on GPUs; worlds that
need more of them are skipped.
"""

import os
from collections.abc import Hashable, Sequence

import pytest

from gpu_tests.cases import DTYPES, Case, Dtype
from gpu_tests.job import check_world, choose_kernels, on_this_machine
from gpu_tests.plan import cases
from verify.errors import VerifyError

BACKEND = os.environ.get("GPU_TESTS_BACKEND", "gloo")
DEADLINE = 120.0

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(1800)]


SLOW = pytest.mark.slow
GUARDS = ("helper", "oracle")


def problems(
    *, world_size: int, guards: Sequence[str], dtypes: tuple[Dtype, ...] = DTYPES
) -> dict[str, list[str]]:
    """What is not as the ledger says, by guard, over all cases; one start of the ranks."""
    return run(every_case(world_size=world_size, guards=guards, dtypes=dtypes), guards=guards)


def every_case(
    *, world_size: int, guards: Sequence[str], dtypes: tuple[Dtype, ...] = DTYPES
) -> list[Case]:
    kernels, _ = choose_kernels(experts=None, norm=None, backend=BACKEND)
    return [
        case
        for guard in guards
        for case in cases(world_size=world_size, guard=guard, dtypes=dtypes, kernels=kernels)
    ]


def told_apart(todo: Sequence[Case]) -> list[Case]:
    """Those that communicate, reduce or are built like none before.

    With them whatever else ranks cannot tell from them: that costs no run.

    Built: a structure, by the number of ranks that its experts are spread over, and who brings it
    the tokens. How a structure computes is every other case's on fewer ranks.
    """
    ways: set[Hashable] = set()
    kept: set[Hashable] = set()
    for case in todo:
        alike = case.alike
        assert isinstance(alike, tuple)
        here = {
            ("moves", case.communication),
            ("reduces", alike[-1]),
            ("built", case.spec, case.deployment.config.ep_size, case.producer),
        }
        if not here <= ways:
            kept.add(alike)
        ways |= here
    return [case for case in todo if case.alike in kept]


def run(todo: Sequence[Case], *, guards: Sequence[str]) -> dict[str, list[str]]:
    """What is not as the ledger says, by guard."""
    world_size = todo[0].deployment.config.tp_size
    try:
        check_world(world_size, BACKEND, local_ranks=world_size)
    except VerifyError as error:
        pytest.skip(str(error))
    outcomes = list(
        on_this_machine(todo, world_size=world_size, backend=BACKEND, deadline=DEADLINE)
    )
    assert [outcome.case for outcome in outcomes] == list(todo)
    assert {case.guard for case in todo} == set(guards)
    found: dict[str, list[str]] = {guard: [] for guard in guards}
    for outcome in outcomes:
        if outcome.problem:
            found[outcome.case.guard].append(f"{outcome.case.title}: {outcome.problem}")
    return found


@pytest.fixture(scope="module")
def two_ranks() -> dict[str, list[str]]:
    """Both guards at once: where they decide alike, ranks have nothing more to say."""
    return problems(world_size=2, guards=GUARDS)


@pytest.mark.parametrize("guard", GUARDS)
def test_two_ranks_and_ledger_agree(two_ranks: dict[str, list[str]], guard: str) -> None:
    assert two_ranks[guard] == []


@pytest.mark.parametrize(
    ("world_size", "dtype"),
    [
        (1, "float32"),
        (1, "bfloat16"),
        pytest.param(4, "float32", marks=SLOW),
        pytest.param(4, "bfloat16", marks=SLOW),
    ],
)
def test_ranks_and_ledger_agree(world_size: int, dtype: Dtype) -> None:
    found = problems(world_size=world_size, guards=("helper",), dtypes=(dtype,))
    assert found == {"helper": []}


def test_four_ranks_and_ledger_agree_on_each_way_to_communicate() -> None:
    every = every_case(world_size=4, guards=("helper",), dtypes=("float32",))
    todo = told_apart(every)
    assert {case.communication for case in todo} == {case.communication for case in every}
    assert {case.row for case in todo} == {case.row for case in every}
    assert {case.spec for case in todo} == {case.spec for case in every}
    assert run(todo, guards=("helper",)) == {"helper": []}


@pytest.mark.parametrize(
    ("world_size", "dtype"),
    [
        (1, "float32"),
        (1, "bfloat16"),
        pytest.param(2, "float32", marks=SLOW),
        pytest.param(2, "bfloat16", marks=SLOW),
        pytest.param(4, "float32", marks=SLOW),
        pytest.param(4, "bfloat16", marks=SLOW),
    ],
)
def test_layers_that_follow_the_plan_are_exact(world_size: int, dtype: Dtype) -> None:
    found = problems(world_size=world_size, guards=("plan",), dtypes=(dtype,))
    assert found == {"plan": []}


def test_layers_that_follow_the_plan_are_exact_in_each_way_to_communicate() -> None:
    todo = told_apart(every_case(world_size=2, guards=("plan",), dtypes=("float32",)))
    assert run(todo, guards=("plan",)) == {"plan": []}


@SLOW
def test_ranks_and_ledger_agree_on_eight() -> None:
    assert problems(world_size=8, guards=("helper",)) == {"helper": []}
