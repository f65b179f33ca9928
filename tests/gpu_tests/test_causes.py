"""Every failing deployment that the ledger finds fails on real ranks too, in the same way."""

from dataclasses import replace

import pytest

from gpu_tests.blocks import DENSE
from gpu_tests.cases import DTYPES, Case
from gpu_tests.causes import Cause, causes
from gpu_tests.job import on_this_machine
from gpu_tests.outcome import Outcome
from gpu_tests.report import make_report
from helper import MoeConfig
from verify.checks.prove.findings import stories
from verify.checks.prove.lattice import prove
from verify.checks.prove.report import built_in_subjects
from verify.engines.sglang.layer import RELEASE_0_5_11
from verify.parallel.deployment import Deployment

on_ranks = [pytest.mark.ranks, pytest.mark.timeout(600)]
WORLDS = (2, 4)
# no cause needs more ranks to show: test_no_cause_is_left_out
FAR = 16


@pytest.fixture(scope="module")
def found() -> dict[int, list[Cause]]:
    return {world_size: list(causes(world_size=world_size)) for world_size in WORLDS}


def test_no_cause_is_left_out(found):
    judged = built_in_subjects()
    tally = prove(judged, max_world_size=FAR)
    told = stories(tuple(tally.faults.values()), judged, RELEASE_0_5_11)
    assert len(told) == sum(map(len, found.values()))
    run = [cause.story.finding for members in found.values() for cause in members]
    assert {story.finding.message for story in told} == {finding.message for finding in run}


def test_every_cause_has_a_block_that_shows_it(found):
    for members in found.values():
        assert [cause.story.finding.message for cause in members if cause.why_not] == []


@pytest.fixture(scope="module")
def seen(found) -> dict[int, list[tuple[Cause, list[Outcome]]]]:
    """Each cause's outcomes, one a precision."""
    result = {}
    for world_size, members in found.items():
        todo = [case for cause in members for case in cause.cases(DTYPES)]
        outcomes = on_this_machine(todo, world_size=world_size, backend="gloo", deadline=60.0)
        result[world_size] = [(cause, [next(outcomes) for _ in DTYPES]) for cause in members]
    return result


class TestOnRanks:
    pytestmark = on_ranks

    @pytest.mark.parametrize("world_size", WORLDS)
    def test_ranks_see_the_ledgers_verdict_and_counts(self, seen, world_size):
        for cause, outcomes in seen[world_size]:
            verdict = cause.story.verdict
            for outcome in outcomes:
                assert outcome.ledger == verdict
                assert outcome.problem == ""
                assert (outcome.kind, outcome.case.row) == (verdict.kind, verdict.row)
                if verdict.kind != "crash":
                    assert outcome.counts == verdict.counts, outcome.case.title
                    assert {rank.family for rank in outcome.ranks} == {verdict.family}

    @pytest.mark.parametrize("world_size", WORLDS)
    def test_values_are_off_where_counts_are(self, seen, world_size):
        for _, outcomes in seen[world_size]:
            for outcome in outcomes:
                if outcome.kind != "crash":
                    assert min(rank.error for rank in outcome.ranks) > 1, outcome.case.title

    @pytest.mark.parametrize("world_size", WORLDS)
    def test_what_cannot_go_on_stops_on_every_rank_and_says_why(self, seen, world_size):
        stopped = [
            outcome
            for _, outcomes in seen[world_size]
            for outcome in outcomes
            if outcome.kind == "crash"
        ]
        assert stopped
        for outcome in stopped:
            assert {rank.kind for rank in outcome.ranks} == {"crash"}
            (why,) = {rank.why for rank in outcome.ranks}
            assert why.startswith(("reduce-scatter of", "all-reduce over")) or (
                "rows by rank meet residuals of" in why
            )

    def test_a_group_that_could_go_on_stops_with_the_others(self):
        """Ranks 0 and 1 hold two rows each, 2 and 3 two and three: all six have to stop."""
        config = MoeConfig(tp_size=6, ep_size=3, attn_dp_size=2, enable_dp_attention=True)
        deployment = Deployment(
            config=config, padding="sum_len", tokens="uneven", fusion="aiter", dense_fully_dp=True
        )
        case = Case(subject=DENSE.block, deployment=deployment, guard="helper", dtype="float32")
        (outcome,) = on_this_machine([case], world_size=6, backend="gloo", deadline=60.0)
        assert outcome.problem == ""
        assert {rank.why for rank in outcome.ranks} == {
            "all-reduce over ranks that hold [2, 3] rows"
        }

    def test_every_kind_of_failure_and_every_producer_is_among_them(self, seen):
        cases = [outcome for each in seen.values() for _, some in each for outcome in some]
        assert {outcome.kind for outcome in cases} == {"double", "missing", "mixed", "crash"}
        assert {outcome.case.producer for outcome in cases} == {
            "experts",
            "FP4 all-gather",
            "all-to-all",
            "dense MLP",
            "whole dense MLP",
        }

    def test_the_report_says_which_were_seen(self, seen):
        (first, outcomes), (second, _) = seen[2][:2]
        report = make_report(outcomes, causes=[first, second], world_size=2, backend="gloo")
        assert report.summary.endswith("all as the ledger says; 1 of 2 causes of prove seen")
        assert [cause["dtypes"] for cause in report.payload["causes"]] == [list(DTYPES), []]
        rows = report.sections[1].rows
        assert [row[0] for row in rows] == [outcomes[0].verdict, "not seen"]

    def test_other_counts_than_the_causes_are_not_the_cause(self, seen):
        cause, outcomes = seen[2][0]
        once = tuple((1,) * len(row) for row in cause.story.verdict.counts)
        story = replace(cause.story, verdict=replace(cause.story.verdict, counts=once))
        other = replace(cause, story=story)
        report = make_report(outcomes, causes=[other], world_size=2, backend="gloo")
        assert report.summary.endswith("0 of 1 causes of prove seen")


def test_a_cause_that_no_block_shows_is_said(found):

    cause = replace(
        found[2][0], subject="", guard="", why_not="no block that is run here has wings"
    )
    report = make_report([], causes=[cause], world_size=2, backend="gloo")
    assert report.sections[1].rows[0][0] == "no block that is run here has wings"
    assert report.summary.endswith("0 of 1 causes of prove seen")
