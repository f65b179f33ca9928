"""The verdict: every way in which an answer can be wrong is noticed and named."""

from dataclasses import replace

import pytest
import torch

from gpu_tests.block import Shard
from gpu_tests.cases import Case
from gpu_tests.judge import RankVerdict, _count, judge_rank, together
from gpu_tests.outcome import Outcome
from gpu_tests.reference import draw_inputs, model
from gpu_tests.report import make_report
from gpu_tests.specs import SPECS
from helper import MoeConfig
from verify.parallel.deployment import Deployment
from verify.report.render import render

SHARDS = tuple(Shard(tp_rank=rank, tp_size=4, shared_rank=rank, shared_size=4) for rank in range(4))
TOKENS = 3
SPEC = SPECS["deepseek_v2"]
MODEL = model(SPEC, torch.float32, SHARDS)
_, TRUTH = draw_inputs(MODEL, tokens=TOKENS, attention_ranks=1)


def judged(routed, shared=None, *, values=None, final=None, ids=(1, 2, 3)):
    """The verdict on a rank that holds these counts [rows, tokens, ranks]."""
    routed = torch.as_tensor(routed, dtype=torch.float64)
    shared = torch.ones_like(routed) * routed.bool() if shared is None else shared
    counts = torch.stack([routed, shared], 1)
    real = [row for row, token in enumerate(ids) if token]
    index = torch.tensor([ids[row] - 1 for row in real], dtype=torch.long)
    if values is None:
        values = torch.zeros(len(ids), SPEC.hidden, dtype=torch.float64)
        values[real] = TRUTH.residual.value[index]
        for family, partial in enumerate((TRUTH.routed, TRUTH.shared)):
            values += torch.einsum("rts,sth->rh", counts[:, family], partial.value)
    if final is None:
        final = torch.zeros(len(ids), SPEC.hidden, dtype=torch.float64)
        final[real] = TRUTH.final.value[index]
        final = torch.cat([final, counts.flatten(1)], 1)
    total = torch.cat([values, counts.flatten(1)], 1)
    return judge_rank(ids=ids, total=total, final=final, truth=TRUTH, shards=SHARDS)


def once():
    """Every rank's partial of its own token, once."""
    return torch.eye(TOKENS, dtype=torch.float64).unsqueeze(-1).repeat(1, 1, 4)


def test_each_partial_once_is_exact():
    verdict = judged(once())
    assert verdict.kind == "exact"
    assert verdict.counts == (1, 1, 1, 1)
    assert max(verdict.error, verdict.told, verdict.final) < 1


def test_all_partials_four_times_is_double_by_four():
    verdict = judged(4 * once(), once())
    assert (verdict.kind, verdict.factor, verdict.counts) == ("double", 4, (4, 4, 4, 4))
    assert verdict.error > 1
    assert verdict.told < 1


def test_one_partial_twice_is_double():
    counts = once()
    counts[1, 1, 2] = 2
    verdict = judged(counts, once())
    assert (verdict.kind, verdict.counts) == ("double", (1, 1, 2, 1))


def test_a_lost_partial_is_missing_and_named():
    counts = once()
    counts[2, 2, 3] = 0
    verdict = judged(counts, once())
    assert (verdict.kind, verdict.missing, verdict.counts) == ("missing", (3,), (1, 1, 1, 0))
    assert verdict.error > 1


def test_a_lost_shared_partial_is_missing_too():
    shared = once()
    shared[0, 0, 1] = 0
    verdict = judged(once(), shared)
    assert (verdict.kind, verdict.family, verdict.counts) == ("missing", "shared", (1, 0, 1, 1))


def test_another_tokens_partial_is_mixed():
    counts = once()
    counts[0, 1, 0] = 1
    verdict = judged(counts, once())
    assert verdict.kind == "mixed"
    assert verdict.told < 1


def test_another_tokens_partial_instead_of_its_own_is_mixed():
    counts = once()
    counts[0, 1], counts[0, 0] = counts[0, 0].clone(), 0
    assert judged(counts, once()).kind == "mixed"


def test_values_that_contradict_the_counts_are_told():
    values = TRUTH.completed.value.clone()
    values[1, 5] += 1e-3
    verdict = judged(once(), values=values)
    assert verdict.kind == "exact"
    assert verdict.told > 1
    assert verdict.error > 1


def test_values_of_the_second_layer_are_judged():
    wrong = torch.cat([TRUTH.final.value + 1e-3, torch.stack([once(), once()], 1).flatten(1)], 1)
    assert judged(once(), final=wrong).final > 1


def test_padding_is_not_judged():
    counts = torch.zeros(4, TOKENS, 4, dtype=torch.float64)
    counts[[0, 1, 3]] = once()
    counts[2] = 7
    verdict = judged(counts, counts.clamp(max=1), ids=(1, 2, 0, 3))
    assert verdict.kind == "exact"


def test_a_rank_without_tokens_is_exact():
    assert judged(torch.zeros(0, TOKENS, 4), ids=()).kind == "exact"


def test_the_worst_rank_names_the_case():
    kinds = ["exact", "missing", "double", "mixed", "crash"]
    for worst in range(5):
        verdicts = [RankVerdict(kind=kind) for kind in kinds[: worst + 1]]
        assert together(verdicts) == kinds[worst]


CASE = Case(
    subject="deepseek_v2/DeepseekV2MoE.forward_normal",
    deployment=Deployment(config=MoeConfig(tp_size=4), shared="sharded"),
    guard="helper",
    dtype="float32",
)
GOOD = Outcome.of(CASE, [RankVerdict(kind="exact", counts=(1, 1, 1, 1))] * 4)


def with_first(**changes):
    return replace(GOOD, ranks=(replace(GOOD.ranks[0], **changes), *GOOD.ranks[1:]))


def test_a_good_outcome_has_no_problem():
    assert GOOD.problem == ""


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"kind": "double", "factor": 4}, "ranks measure double (x4), the ledger says exact"),
        (
            {"kind": "missing", "missing": (1, 3)},
            "ranks measure missing (ranks 1, 3), the ledger says exact",
        ),
        ({"kind": "crash"}, "ranks measure crash, the ledger says exact"),
        ({"told": 3.0}, "values deviate from what the counts say by 3.0 tolerances"),
        ({"error": 2.0}, "values deviate from one rank's by 2.0 tolerances"),
        ({"final": 2.5}, "values deviate from one rank's by 2.5 tolerances"),
        (
            {"counts": (1, 1, 1, 2)},
            "ranks count ((1, 1, 1, 2), (1, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1)), "
            "the ledger ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 1))",
        ),
    ],
)
def test_every_problem_is_said(changes, problem):
    assert with_first(**changes).problem == problem


def test_a_failure_that_values_do_not_show_is_a_problem():
    case = replace(CASE, guard="True", deployment=replace(CASE.deployment, fusion="flashinfer"))
    twice = RankVerdict(kind="double", counts=(4, 4, 4, 4), factor=4, error=9.0)
    assert Outcome.of(case, [twice] * 4).problem == ""
    unseen = Outcome.of(case, [replace(twice, error=0.5)] * 4)
    assert unseen.problem == "counts say double (x4), values do not show it"


def test_ranks_that_stop_have_to_stop_together():
    stops = replace(GOOD.ledger, kind="crash", counts=())
    stopped = RankVerdict(kind="crash", why="all-reduce over ranks that hold [1, 3] rows")
    together = replace(GOOD, ranks=(stopped,) * 4, ledger=stops)
    assert together.problem == ""
    alone = replace(together, ranks=(stopped, *GOOD.ranks[1:]))
    assert alone.problem == "some ranks stopped and others went on without them"


def test_copies_are_counted_for_all_who_hold_them():
    """Two ranks hold the same part: whichever is added, it is there once for both."""
    copies = (Shard(),) * 4
    counts = torch.zeros(1, 2, TOKENS, 4, dtype=torch.float64)
    counts[0, :, 1, 2] = 1
    index = torch.tensor([1])
    assert _count(counts, index, copies, has_shared=True).counts == (1, 1, 1, 1)
    counts[0, 1, 1, 3] = 1
    twice = _count(counts, index, copies, has_shared=True)
    assert (twice.kind, twice.family, twice.counts) == ("double", "shared", (2, 2, 2, 2))
    assert _count(0 * counts, index, copies, has_shared=True).missing == (0, 1, 2, 3)


def test_report_of_a_wrong_and_a_right_case():
    report = make_report([GOOD, with_first(told=3.0)], world_size=4, backend="gloo")
    assert report.summary == "2 cases on 4 ranks: 2 exact; 1 not as the ledger says"
    (finding,) = report.findings
    assert finding.message == (
        "deepseek_v2/DeepseekV2MoE.forward_normal row 0000 tp4 ep1 moe_dp1 dp1 cp1 float32: "
        "values deviate from what the counts say by 3.0 tolerances"
    )
    for format_name in ("table", "markdown", "json"):
        assert "deepseek_v2/DeepseekV2MoE.forward_normal" in render(report, format_name=format_name)
