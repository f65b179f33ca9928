"""What stands for arithmetic keeps counts apart and tokens known."""

import torch

from verify.emulator.witness import HIDDEN_SIZE, Witness, embed, project


def test_hidden_states_side_by_side_become_one_again():
    both = torch.cat([embed(torch.tensor([3, 5])), embed(torch.tensor([3, 5]))], dim=-1)
    assert project(both, HIDDEN_SIZE)[:, 0].tolist() == [3.0, 5.0]


def test_any_other_projection_is_zero():
    hidden = embed(torch.tensor([3]))
    assert project(hidden, HIDDEN_SIZE).count_nonzero() == 0
    assert project(hidden, 7).shape == (1, 7)


class RowParallelLayer(torch.nn.Module):
    pass


def model_of(*names):
    return torch.nn.ModuleDict({name: RowParallelLayer() for name in names})


def test_numbers_given_before_are_kept():
    """A pipeline stage has some of the layers, and their places are those of the whole model."""
    whole = Witness(rank=0, world_size=1)
    whole.watch(model_of("first", "second"))
    stage = Witness(rank=0, world_size=1)
    model = model_of("second")
    stage.watch(model, whole.slots)
    assert stage.slots == whole.slots == {"first": 1, "second": 2}
    output = stage.partial(
        model["second"], shard=0, shards=1, tokens=2, marks=torch.tensor([3.0, 5.0])
    )
    seen = stage.read(output, torch.tensor([3.0, 5.0]))
    assert seen.counts["second"].flatten().tolist() == [1.0, 1.0]
    assert seen.counts["first"].count_nonzero() == 0
    assert seen.worked_on["second"].tolist() == [3.0, 5.0]
    assert list(seen.shards) == ["second"]


def test_a_rank_without_tokens_is_read_whatever_type_it_has_none_of():
    """0.5.23's qwen4_exp comes back with none in half precision: judging it ended the process."""
    witness = Witness(rank=0, world_size=1)
    witness.watch(model_of("first"))
    none = torch.zeros((0, HIDDEN_SIZE), dtype=torch.bfloat16)
    seen = witness.read(none, torch.zeros(0))
    assert {seen.found.dtype, seen.counts["first"].dtype} == {torch.float32}
