"""Dispatch without ranks: which rows go where, and that what comes back adds up to the block."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpu_tests.block import MoEBlock, Shard, dense_weights, expert_ranges, whole_weights
from gpu_tests.mlp import SwiGLU
from gpu_tests.producers import _rows_for_each
from gpu_tests.specs import SPECS, dense_layer
from gpu_tests.witness import FAMILIES, Witness

models = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


@given(st.integers(1, 8), st.data())
def test_a_row_goes_to_the_ranks_that_hold_its_experts_and_to_no_other(ranks, data):
    experts = data.draw(st.integers(ranks, 32))
    chosen = st.lists(st.integers(0, experts - 1), min_size=2, max_size=2)
    rows = data.draw(st.lists(chosen, min_size=1, max_size=5))
    asked = _rows_for_each(torch.tensor(rows), experts, ranks)
    owned = [range(experts)[part] for part in expert_ranges(experts, ranks)]
    assert [expert for part in owned for expert in part] == list(range(experts))
    for row, ids in enumerate(rows):
        holders = {rank for rank, part in enumerate(owned) if set(ids) & set(part)}
        assert {rank for rank in range(ranks) if row in asked[rank].tolist()} == holders


@models
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_what_comes_back_adds_up_to_the_block(spec, ranks):
    weights = whole_weights(spec)
    x = torch.randn(5, spec.hidden, generator=torch.Generator().manual_seed(11)).double()
    whole = MoEBlock(spec, weights, Shard())
    choice = whole.choose(x)
    total = torch.zeros_like(x)
    for rank, rows in enumerate(_rows_for_each(choice.ids, spec.experts, ranks)):
        part = MoEBlock(spec, weights, Shard(ep_rank=rank, ep_size=ranks))
        back = part.routed(x[rows], choice.ids[rows], choice.weights[rows])
        total.index_add_(0, rows, back)
    torch.testing.assert_close(total, whole.routed(x, choice.ids, choice.weights))


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_slices_of_a_dense_mlp_add_up_to_it(ranks):
    spec = dense_layer(SPECS["deepseek_v2"])
    weights = dense_weights(spec)
    x = torch.randn(5, spec.hidden, generator=torch.Generator().manual_seed(13)).double()
    inner = torch.nn.functional.silu(x @ weights.gate.T) * (x @ weights.up.T)
    shards = [Shard(tp_rank=rank, tp_size=ranks) for rank in range(ranks)]
    parts = [SwiGLU(weights, shard.width(spec.intermediate))(x) for shard in shards]
    torch.testing.assert_close(sum(parts), inner @ weights.down.T)


@given(st.integers(1, 6), st.integers(1, 4), st.data())
def test_every_partial_has_a_column_of_its_own(tokens, ranks, data):
    witness = Witness(tokens=tokens, ranks=ranks)
    ids = torch.tensor(data.draw(st.permutations(range(tokens + 1))))
    marks = sum(
        witness.marks(ids, family, rank=rank, dtype=torch.float32)
        for family in FAMILIES
        for rank in range(ranks)
    )
    assert marks.sum(0).tolist() == [1.0] * (tokens * ranks * len(FAMILIES))
    # a row of padding has no partials
    assert marks[ids == 0].sum() == 0


def test_without_tokens_nothing_is_counted():
    marks = Witness(tokens=0, ranks=4).marks(torch.zeros(3), "routed", rank=1, dtype=torch.float32)
    assert marks.shape == (3, 0)
