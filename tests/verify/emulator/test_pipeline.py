"""Between stages, tensors travel by slices: what is complete arrives, what is partial does not."""

import pytest
import torch

from verify.emulator.pipeline import Pipeline
from verify.emulator.ranks import Rank, run_ranks


def handed_on(tensors):
    """What two ranks of a second stage receive of `tensors(rank)`."""
    pipeline = Pipeline(stages=2)

    def body(rank: Rank):
        received = pipeline.receive()
        if received is None:
            pipeline.send(tensors(rank))
        return received

    return run_ranks(body, world_size=4)[2:]


def test_complete_tensors_arrive_whole():
    whole = torch.arange(8.0).reshape(4, 2)
    for received in handed_on(lambda rank: {"hidden": whole, "residual": None}):
        assert torch.equal(received["hidden"], whole)
        assert received["residual"] is None


def test_each_half_of_a_partial_sum_is_one_ranks_part():
    received = handed_on(lambda rank: {"hidden": torch.full((4, 1), float(rank.rank))})
    assert [part["hidden"].flatten().tolist() for part in received] == [[0.0, 0.0, 1.0, 1.0]] * 2


@pytest.mark.parametrize("rows", [0, 3])
def test_what_cannot_be_sliced_is_sent_as_it_is(rows):
    received = handed_on(lambda rank: {"hidden": torch.full((rows, 1), float(rank.rank))})
    assert [part["hidden"].flatten().tolist() for part in received] == [[0.0] * rows, [1.0] * rows]


def test_attributes_of_tensors_stay_behind():
    def marked(rank: Rank):
        tensor = torch.zeros(2, 1)
        tensor.owed = True
        return {"hidden": tensor}

    assert not any(hasattr(part["hidden"], "owed") for part in handed_on(marked))


def test_only_the_last_stage_ends_the_pass():
    pipeline = Pipeline(stages=2)
    assert run_ranks(lambda rank: pipeline.is_last(), world_size=4) == [False, False, True, True]
