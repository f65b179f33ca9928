"""A guard that is wrong by one literal is seen on real ranks, and so is a wrong ledger."""

import pytest

from gpu_tests import expect
from gpu_tests.cases import Case
from gpu_tests.job import on_this_machine
from gpu_tests.plan import runnable
from helper import SKIP_REASONS
from verify.parallel.deployment import Deployment

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(1200)]

ONE_SITE = "mimo_v2_flash/MiMoV2MoE.forward_normal"
TWO_SITES = "qwen3_moe/Qwen3MoeSparseMoeBlock.forward_normal"
FLAGS = tuple(reason.flag for reason in SKIP_REASONS)
COMPLETE = "not (AF or RS or DP or FI)"


def outcomes(asked: list[tuple[str, str]]):
    """(subject, guard) -> outcomes over every deployment of two and four ranks, in that order."""
    found = {each: [] for each in asked}
    for world_size in (2, 4):
        todo = [
            Case(subject=subject, deployment=deployment, guard=guard, dtype="float32")
            for subject, guard in asked
            for deployment in telling(world_size)
        ]
        for outcome in on_this_machine(todo, world_size=world_size, backend="gloo", deadline=60.0):
            assert outcome.problem == ""
            found[outcome.case.subject, outcome.case.guard].append(outcome)
    return found


def telling(world_size: int) -> list[Deployment]:
    """One deployment for each row and layout, and for each fusion where the row has any."""
    first = {}
    for deployment in runnable(world_size):
        if deployment.shared == "none":
            case = Case(subject=ONE_SITE, deployment=deployment, guard="helper", dtype="float32")
            fusion = deployment.fusion if case.flags["AF"] else None
            first.setdefault((case.row, deployment.config, fusion), deployment)
    return list(first.values())


MUTANTS = [f"not ({' or '.join(f for f in FLAGS if f != left_out)})" for left_out in FLAGS]
BLOCKS = (ONE_SITE, TWO_SITES)


@pytest.fixture(scope="module")
def ran():
    """The full guard and one without each literal on both kinds of block, and none on one."""
    asked = [(subject, guard) for subject in BLOCKS for guard in (COMPLETE, *MUTANTS)]
    return outcomes([*asked, (ONE_SITE, "False")])


@pytest.mark.parametrize("subject", BLOCKS)
@pytest.mark.parametrize("left_out", FLAGS)
def test_leaving_one_literal_out_turns_exact_cases_wrong(ran, subject, left_out):
    whole = ran[subject, COMPLETE]
    mutant = ran[subject, MUTANTS[FLAGS.index(left_out)]]
    changed = [
        (before, after)
        for before, after in zip(whole, mutant, strict=True)
        if before.kind == "exact" != after.kind
    ]
    # FI: combine leaves every rank its own tokens, and one more sum over ranks mixes them
    wrong = {"FI": {"mixed", "crash"}}.get(left_out, {"double"})
    assert {after.kind for _, after in changed} & wrong
    for _, after in changed:
        assert after.case.row[FLAGS.index(left_out)] == "1"
        if after.kind == "double":
            width = after.case.deployment.config.tp_size
            assert max(verdict.factor for verdict in after.ranks) in range(2, width + 1)
            assert after.error > 1


def test_never_reducing_loses_sums(ran):
    found = ran[ONE_SITE, "False"]
    missing = [outcome for outcome in found if outcome.kind == "missing"]
    assert {outcome.case.row for outcome in missing} == {"0000"} | {
        outcome.case.row for outcome in missing if outcome.case.flags["AF"]
    }
    assert all(outcome.error > 1 for outcome in missing)


def test_a_ledger_that_is_wrong_is_noticed(monkeypatch):
    """The comparison can fail: against verdicts on another guard it does."""
    deployment = next(d for d in telling(2) if d.sums_by_scatterv)
    case = Case(subject=ONE_SITE, deployment=deployment, guard="helper", dtype="float32")
    wrong = expect.guards(ONE_SITE, "True")
    monkeypatch.setattr(expect, "guards", lambda *_: wrong)
    (outcome,) = on_this_machine([case], world_size=2, backend="gloo", deadline=60.0)
    assert outcome.problem == "ranks measure exact, the ledger says double"
