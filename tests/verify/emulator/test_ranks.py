"""In-process ranks: right values, and every way to get stuck has a name."""

import time

import pytest
import torch

from verify.emulator.ranks import Rank, RanksError, run_ranks


def numbers(rank: Rank, tokens: int = 4) -> torch.Tensor:
    return torch.arange(tokens * 2, dtype=torch.float64).reshape(tokens, 2) + 100 * rank.rank


def test_all_reduce_adds_only_within_the_group():
    groups = {0: (0, 2), 2: (0, 2), 1: (1, 3), 3: (1, 3)}
    sums = run_ranks(
        lambda rank: rank.all_reduce(torch.tensor([10**rank.rank]), group=groups[rank.rank]),
        world_size=4,
    )
    assert [int(total) for total in sums] == [101, 1010, 101, 1010]


def test_scatters_are_the_shares_of_the_sum():
    def body(rank: Rank) -> bool:
        total = rank.all_reduce(numbers(rank))
        even = rank.reduce_scatter(numbers(rank))
        uneven = rank.reduce_scatterv(numbers(rank), sizes=(3, 1))
        return torch.equal(even, total.split(2)[rank.rank]) and torch.equal(
            uneven, total.split([3, 1])[rank.rank]
        )

    assert run_ranks(body, world_size=2) == [True, True]


def test_gathers_stack_in_group_order():
    def body(rank: Rank) -> tuple[list[int], list[int]]:
        mine = torch.tensor([rank.rank])
        even = rank.all_gather(mine, group=(2, 0, 1))
        uneven = rank.all_gatherv(mine.repeat(rank.rank), sizes=(0, 1, 2))
        return even.tolist(), uneven.tolist()

    assert run_ranks(body, world_size=3) == [([2, 0, 1], [1, 2, 2])] * 3


def test_a_collective_neither_changes_nor_shares_its_input():
    def body(rank: Rank) -> list[float]:
        mine = torch.ones(2)
        received = rank.broadcast(mine, source=0)
        received += 5
        mine += 7
        return rank.all_reduce(mine).tolist()

    assert run_ranks(body, world_size=2) == [[16.0, 16.0]] * 2


def failure_of(body, *, world_size: int = 2, **limits: float) -> RanksError:
    with pytest.raises(RanksError) as caught:
        run_ranks(body, world_size=world_size, **limits)
    return caught.value


def test_a_rank_that_never_comes_is_a_hang_seen_at_once():
    started = time.monotonic()
    failure = failure_of(lambda rank: rank.rank and rank.all_reduce(torch.ones(3)))
    assert failure.kind == "hang"
    assert "rank 1 waits in all_reduce(shape (3,)" in str(failure)
    assert "ranks [0] have finished" in str(failure)
    assert time.monotonic() - started < 5


def test_two_groups_that_wait_for_each_other_are_a_hang():
    failure = failure_of(
        lambda rank: rank.all_reduce(torch.ones(1), group=(0, 1) if rank.rank == 0 else None),
        world_size=3,
    )
    assert failure.kind == "hang"
    assert "over ranks (0, 1)" in str(failure)
    assert "over ranks (0, 1, 2)" in str(failure)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(lambda rank: rank.all_reduce(torch.ones(1 + rank.rank)), id="shape"),
        pytest.param(
            lambda rank: rank.all_reduce(
                torch.ones(1, dtype=[torch.float32, torch.int32][rank.rank])
            ),
            id="dtype",
        ),
        pytest.param(
            lambda rank: (
                rank.all_gather(torch.ones(2)) if rank.rank else rank.all_reduce(torch.ones(2))
            ),
            id="operation",
        ),
        pytest.param(
            lambda rank: rank.reduce_scatterv(torch.ones(3), sizes=(1, 2) if rank.rank else (2, 1)),
            id="sizes",
        ),
    ],
)
def test_ranks_that_disagree_are_a_crash_that_names_both(body):
    failure = failure_of(body)
    assert failure.kind == "crash"
    assert "rank 0 entered" in str(failure)
    assert "rank 1 entered" in str(failure)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (lambda rank: rank.reduce_scatter(torch.ones(3)), "not an even share"),
        (lambda rank: rank.reduce_scatterv(torch.ones(3), sizes=(1, 1)), "add up to 3 tokens"),
        (lambda rank: rank.reduce_scatterv(torch.ones(3), sizes=(3,)), "1 sizes for 2 ranks"),
        (lambda rank: rank.all_gatherv(torch.ones(3), sizes=(2, 2)), "this rank's 3 tokens"),
        (lambda rank: rank.all_reduce(torch.ones(3), group=(1,)), "it is not one of"),
        (lambda rank: 1 // rank.rank, "rank 0: ZeroDivisionError"),
    ],
)
def test_misuse_is_a_crash_with_one_line(body, said):
    failure = failure_of(body)
    assert failure.kind == "crash"
    assert said in str(failure)
    assert "\n" not in str(failure)


def test_a_rank_that_computes_without_end_meets_the_limit():
    failure = failure_of(lambda rank: rank.rank or time.sleep(2), time_limit=0.2)
    assert failure.kind == "hang"
    assert str(failure).startswith("rank 0 neither finished nor entered a collective")
