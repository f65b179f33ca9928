"""Every case has tokens that all precisions route alike, by construction."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_tests import reference, work
from gpu_tests.block import Shard
from gpu_tests.cases import Case
from gpu_tests.judge import RankVerdict
from gpu_tests.outcome import Outcome
from gpu_tests.plan import cases
from gpu_tests.reference import PreparationError, draw_inputs, model, solve
from gpu_tests.specs import SPECS, without_shared


@given(
    spec=st.sampled_from([*SPECS.values(), *map(without_shared, SPECS.values())]),
    width=st.sampled_from([(32, 16), (64, 32), (256, 32)]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    ranks=st.sampled_from([1, 2, 4, 8]),
    tokens=st.integers(1, 16),
)
@settings(max_examples=30, deadline=None)
def test_a_margin_exists_for_every_spec_width_dtype_and_world_size(
    spec, width, dtype, ranks, tokens
):
    hidden, intermediate = width
    spec = replace(spec, hidden=hidden, intermediate=intermediate)
    shards = tuple(
        Shard(tp_rank=rank, tp_size=ranks, shared_rank=rank, shared_size=ranks)
        for rank in range(ranks)
    )
    world = model(spec, dtype, shards)
    inputs, _ = draw_inputs(world, tokens=tokens, attention_ranks=ranks)
    assert (solve(world, inputs)[1] >= 1).all()


def test_what_cannot_be_prepared_says_which(monkeypatch):
    monkeypatch.setattr(reference, "TOLERANCE", 1e9)
    world = model(SPECS["qwen2_moe"], torch.bfloat16, (Shard(),))
    with pytest.raises(PreparationError, match="qwen2_moe, 32 wide"):
        draw_inputs(world, tokens=4, attention_ranks=1)


def test_a_case_that_cannot_be_prepared_is_its_own_finding_and_no_other_s(monkeypatch):
    first, second, *_ = cases(world_size=1, dtypes=("float32",), models=("qwen3_moe",))

    def no_tokens(*_):
        raise PreparationError("no tokens")

    monkeypatch.setattr(work, "_reference", no_tokens)

    class OneRank:
        rank, size, device = 0, 1, torch.device("cpu")
        say = call = open_groups = staticmethod(lambda *_: None)

    verdict = work.run_case(OneRank(), first)
    assert (verdict.kind, verdict.why) == ("not prepared", "no tokens")
    outcome = Outcome.of(first, [verdict])
    assert outcome.problem == "not run: no tokens"
    assert isinstance(second, Case)
    assert Outcome.of(second, [RankVerdict(kind="exact", counts=(1,))]).kind == "exact"
