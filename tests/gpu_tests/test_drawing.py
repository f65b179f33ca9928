"""Every case has tokens that all precisions route alike, by construction."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_tests import _cli, reference, work
from gpu_tests._cli import main
from gpu_tests.block import Shard
from gpu_tests.cases import Case
from gpu_tests.judge import RankVerdict
from gpu_tests.outcome import Outcome
from gpu_tests.plan import cases
from gpu_tests.ranks import Ranks
from gpu_tests.reference import PreparationError, draw_inputs, model, solve
from gpu_tests.specs import SPECS, widened, without_shared

ALONE = Ranks(
    rank=0,
    size=1,
    device=torch.device("cpu"),
    say=lambda _: None,
    call=lambda _: None,
)


# flashinfer's kernels want rows of at least this much
WIDE = (widened(SPECS["qwen2_moe"]).hidden, widened(SPECS["qwen2_moe"]).intermediate)

SIZES = (1, 2, 4, 8, 16)
# ranks, and of them: EP, attention TP, ranks that shared experts are cut over
LAYOUTS = [
    (ranks, ep, attention, shared)
    for ranks in SIZES
    for ep in SIZES
    for attention in SIZES
    for shared in {1, ranks}
    if max(ep, attention) <= ranks
]


@given(
    spec=st.sampled_from([*SPECS.values(), *map(without_shared, SPECS.values())]),
    width=st.sampled_from([(32, 16), (64, 32), WIDE]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    layout=st.sampled_from(LAYOUTS),
    tokens=st.integers(1, 48),
)
@settings(max_examples=30, deadline=None)
def test_a_margin_exists_for_every_spec_width_dtype_and_world_size(
    spec, width, dtype, layout, tokens
):
    hidden, intermediate = width
    spec = replace(spec, hidden=hidden, intermediate=intermediate)
    ranks, ep, attention, shared = layout
    shards = tuple(
        Shard(
            ep_rank=rank // (ranks // ep),
            ep_size=ep,
            tp_rank=rank % (ranks // ep),
            tp_size=ranks // ep,
            shared_rank=rank % shared,
            shared_size=shared,
        )
        for rank in range(ranks)
    )
    world = model(spec, dtype, shards)
    inputs, _ = draw_inputs(world, tokens=tokens, attention_ranks=attention)
    assert (solve(world, inputs)[1] >= 1).all()


def test_what_cannot_be_prepared_says_its_width_and_precision(monkeypatch):
    monkeypatch.setattr(reference, "TOLERANCE", 1e9)
    monkeypatch.setattr(reference, "MAX_DRAWS", 2)
    world = model(SPECS["qwen2_moe"], torch.bfloat16, (Shard(),))
    with pytest.raises(PreparationError, match=r"^32 wide, torch\.bfloat16: "):
        draw_inputs(world, tokens=4, attention_ranks=1)


def test_a_case_that_cannot_be_prepared_is_its_own_finding_and_no_other_s(monkeypatch):
    first, second, *_ = cases(world_size=1, dtypes=("float32",), models=("qwen3_moe",))

    def no_tokens(*_):
        raise PreparationError("no tokens")

    monkeypatch.setattr(work, "reference_of", no_tokens)

    verdict = work.run_case(ALONE, first)
    assert (verdict.kind, verdict.why) == ("not prepared", "no tokens")
    outcome = Outcome.of(first, [verdict])
    assert outcome.problem == "not run: no tokens"
    assert isinstance(second, Case)
    assert Outcome.of(second, [RankVerdict(kind="exact", counts=(1,))]).kind == "exact"


def test_a_case_that_cannot_be_prepared_ends_the_run_with_1_and_no_other_case(
    monkeypatch, tmp_path, capsys
):
    right, asked = work.reference_of, []

    def third_has_no_tokens(*arguments):
        asked.append(arguments)
        if len(asked) == 3:
            raise PreparationError("no tokens")
        return right(*arguments)

    def in_this_process(todo, **_):
        return (Outcome.of(case, [work.run_case(ALONE, case)]) for case in todo)

    monkeypatch.setattr(work, "reference_of", third_has_no_tokens)
    monkeypatch.setattr(_cli, "on_this_machine", in_this_process)
    path = tmp_path / "report.json"
    command = "--world-size 1 --backend gloo --dtype float32 --format json"
    assert main([*command.split(), "--output", str(path)]) == 1
    report = json.loads(path.read_text())
    kinds = [case["kind"] for case in report["cases"]]
    assert kinds.count("not prepared") == 1
    assert kinds.count("exact") == len(kinds) - 1 > 2
    (finding,) = report["findings"]
    assert "not run: no tokens" in finding["message"]
    assert "1 not prepared" in capsys.readouterr().err
