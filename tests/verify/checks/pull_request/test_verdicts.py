"""The pull request, judged: whose answer is right, row by row."""

from dataclasses import replace

import pytest

from helper import Consumer, plan_layer
from oracles import SITES
from verify.checks.pull_request import verdicts as pull_request
from verify.checks.pull_request.verdicts import RowVerdict, judged
from verify.parallel.guards import Answer

REDUCE = Answer(skips_ep=False, skips_tp=False)
SKIP = Answer(skips_ep=True, skips_tp=True)
SKIP_EP = Answer(skips_ep=True, skips_tp=False)
SKIP_TP = Answer(skips_ep=False, skips_tp=True)


@pytest.fixture(scope="module")
def verdict():
    return judged(max_ranks=4)


def meanings(verdict, row):
    return {each.block.partition("/")[0]: each.meaning for each in verdict.rows if each.row == row}


def test_the_fp4_row_is_a_latent_fix_where_the_guard_did_not_know_it(verdict):
    fixed = {model for model, meaning in meanings(verdict, 0b0001).items() if "fix" in meaning}
    assert fixed == {
        site.model
        for site in SITES
        if "FI" not in site.guard and site.collective.startswith("tensor")
    }


def test_agreeing_and_both_wrong(verdict):
    """qwen3_moe's EP reduction after combine: the original and the helper say the same."""
    row = next(r for r in verdict.rows if r.block.startswith("qwen3_moe") and r.row == 0b0001)
    assert row.helper == row.original == SKIP_TP
    assert row.meaning == "both wrong"
    assert row.exact[SKIP_TP] == 0
    assert row.best == SKIP


def test_nothing_got_worse(verdict):
    assert "regression" not in {row.meaning for row in verdict.rows}


def test_fi_matters_on_the_ep_path(verdict):
    assert {row.block.partition("/")[0] for row in verdict.skip_reason_matters("FI", "EP")} == {
        "hunyuan_v3",
        "qwen3_moe",
    }
    assert not verdict.skip_reason_matters("DP", "EP")


def test_sections_and_payload_say_the_same(verdict):
    decided, surroundings = verdict.sections
    shown = [row for row in verdict.rows if row.meaning in {"latent fix", "both wrong"}]
    assert [line[0] for line in decided.rows] == [row.block for row in shown]
    assert len(verdict.payload["rows"]) == len(verdict.rows)
    assert sum(verdict.payload["meanings"].values()) == len(verdict.rows)
    assert ("1010", "skip", "0%", "100%") in {line[:4] for line in surroundings.rows}


def test_the_plan_is_exact_in_every_deployment_of_every_row(verdict):
    assert all(row.plan_exact == row.deployments for row in verdict.rows)
    assert {line["plan_exact"] == line["deployments"] for line in verdict.payload["rows"]} == {True}


def test_a_wrong_plan_shows_in_the_rows_in_which_it_is_followed():
    """One that forgets the norm's sum: rows with AF lose it, and no others."""

    def forgets(deployment, layer):
        right = plan_layer(deployment.config, layer)
        if right.consumer.step != "fused norm":
            return right
        return replace(right, consumer=Consumer(step="nothing", over="none"))

    rows = judged(max_ranks=2, planner=forgets).rows
    wrong = {row.row for row in rows if row.plan_exact < row.deployments}
    # RS and DP need attention data parallelism, under which no norm sums; a guard that hears no
    # AF is in row 0000 there
    assert wrong == {0b1000, 0b0000}
    assert all(row.plan_exact < row.deployments for row in rows if row.row == 0b1000)


def test_the_column_is_the_share_that_was_counted(verdict):
    decided = verdict.sections[0]
    shares = {line[decided.columns.index("plan")] for line in decided.rows}
    assert shares == {"100%"}
    wrong = judged(
        max_ranks=2,
        planner=lambda deployment, layer: replace(
            plan_layer(deployment.config, layer), block_sum="tp"
        ),
    )
    column = [line[decided.columns.index("plan")] for line in wrong.sections[0].rows]
    assert column
    assert "100%" not in column


def test_a_corrupted_oracle_changes_the_verdict(monkeypatch):
    """An original that had known FI would have left nothing to fix."""
    knowing = tuple(
        replace(site, guard=f"({site.guard}) and not FI") if site.model == "llama4" else site
        for site in SITES
    )
    monkeypatch.setattr(pull_request, "SITES", knowing)
    assert meanings(judged(max_ranks=2), 0b0001)["llama4"] == "both best"


@pytest.mark.parametrize(
    ("helper", "original", "exact", "meaning"),
    [
        (SKIP, SKIP, {SKIP: 4, REDUCE: 0}, "both right"),
        (SKIP, SKIP, {SKIP: 3, REDUCE: 0}, "both best"),
        (SKIP, SKIP, {SKIP: 0, REDUCE: 4}, "both wrong"),
        (SKIP, REDUCE, {SKIP: 4, REDUCE: 0}, "latent fix"),
        (SKIP, REDUCE, {SKIP: 0, REDUCE: 4}, "regression"),
        (SKIP, REDUCE, {SKIP: 2, REDUCE: 2}, "both best"),
    ],
)
def test_meanings(helper, original, exact, meaning):
    row = RowVerdict(
        block="a",
        row=1,
        deployments=4,
        exact={SKIP_EP: 0, SKIP_TP: 0, **exact},
        plan_exact=4,
        helper=helper,
        original=original,
    )
    assert row.meaning == meaning


def test_answers_in_words():
    assert [each.words for each in (REDUCE, SKIP, SKIP_EP, SKIP_TP)] == [
        "reduce",
        "skip",
        "skip EP",
        "skip TP",
    ]
    assert SKIP_TP.with_skip("EP") == SKIP
    assert REDUCE.with_skip("TP") == SKIP_TP
