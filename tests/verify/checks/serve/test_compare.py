"""Comparing rows, and what a run's end is called: each corrupted once."""

import base64
import math
import struct

import pytest

from verify.checks.serve import compare, ended
from verify.checks.serve.case import Case, Result
from verify.checks.serve.ended import classify
from verify.checks.serve.layout import parse
from verify.checks.serve.report import report
from verify.checks.serve.results import Subject
from verify.engines.sglang.serving import ENGINE
from verify.errors import VerifyError


def row(*values, step="prefill", prompt=0):
    packed = struct.pack(f"<{len(values)}f", *values)
    return {"step": step, "prompt": prompt, "logprobs": base64.b64encode(packed).decode()}


ONE = compare.table([row(-1.0, -2.0), row(-3.0, -4.0, step="decode 1")])


def test_the_worst_of_each_step_is_kept():
    ranks = [[row(-1.0, -2.0), row(-3.0, -4.5, step="decode 1")]]
    assert compare.steps(ONE, ranks) == {"prefill": 0.0, "decode 1": 0.5}


@pytest.mark.parametrize("values", [(math.nan, -4.0), (-3.0,)])
def test_nan_and_another_length_are_no_agreement(values):
    ranks = [[row(-1.0, -2.0), row(*values, step="decode 1")]]
    assert compare.steps(ONE, ranks)["decode 1"] == math.inf


def test_a_row_that_no_rank_holds_is_an_error():
    with pytest.raises(ValueError, match="decode 1"):
        compare.steps(ONE, [[row(-1.0, -2.0)]])


def answer(**changes):
    good = {"rows": [row(-1.0)], "unfilled": []}
    whole = {
        "prepare": None,
        "ranks": [good, good],
        "ended": {"ranks": ["", ""]},
        "said": ["", ""],
    }
    return {**whole, **changes}


def failed(error, kind="RuntimeError"):
    return {"error": error, "kind": kind, "frames": ["/x/sglang/srt/a.py:7", "/x/torch/b.py:1"]}


ABORT = "gloo::EnforceNotMet op.preamble.length <= op.nbytes. 4096 vs 3072."
GONE = failed("RuntimeError: Connection closed by peer")


@pytest.mark.parametrize(
    ("changes", "outcome", "why"),
    [
        ({}, "exact", None),
        ({"lost": "no answer"}, "cannot-run", "no answer"),
        ({"prepare": failed("no", "RefusedError")}, "refused", "no"),
        ({"prepare": failed("no")}, "cannot-run", "sglang/srt/a.py:7"),
        ({"ranks": [GONE, None], "said": ["", ABORT]}, "sizes-differ", "4096 vs 3072"),
        ({"ranks": [GONE, None], "ended": {"ranks": ["", "signal 9"]}}, "cannot-run", "rank 1"),
        ({"ranks": [GONE, failed("its own")]}, "cannot-run", "rank 1: its own"),
        ({"ranks": [{"rows": [], "unfilled": ["w"]}] * 2}, "cannot-run", "filled w"),
    ],
)
def test_how_a_run_ended_is_told_by_its_words(changes, outcome, why):
    found, said = classify(answer(**changes), engine=ENGINE)
    assert found == outcome
    assert why is None or why in str(said)


def test_the_place_that_is_named_is_the_engine_s_not_this_tool_s():
    own = str(ended.OWN) + "engines/sglang/serving/inside/drive.py:113"
    failure = {**failed("no"), "frames": ["/x/sglang/srt/a.py:7", own]}
    assert classify(answer(prepare=failure), engine=ENGINE) == (
        "cannot-run",
        "no at sglang/srt/a.py:7",
    )


SUBJECT = Subject(source="s", builder="b")


def result(outcome):
    case = Case(model="m", layout=parse("tp2"))
    return Result(
        release="sglang 1", case=case, launch=("--tp-size", "2"), outcome=outcome, dlogprob=1.0
    )


@pytest.mark.parametrize(
    ("outcome", "rule"),
    [
        ("diverged", "serve-diverged"),
        ("sizes-differ", "serve-sizes-differ"),
        ("cannot-run", "not-analysed"),
        ("ill-conditioned", "not-analysed"),
    ],
)
def test_nothing_but_exact_is_a_pass(outcome, rule):
    told = report([result("exact"), result(outcome)], engine="sglang", subject=SUBJECT, named=True)
    assert [finding.rule for finding in told.findings] == [rule]


def test_under_an_enumeration_what_cannot_run_is_counted_only():
    told = report(
        [result("exact"), result("cannot-run"), result("refused")],
        engine="sglang",
        subject=SUBJECT,
        named=False,
    )
    assert not told.findings
    assert told.summary.endswith("1 exact, 1 refused, 1 cannot-run")


def test_when_no_case_ran_there_is_no_report():
    with pytest.raises(VerifyError, match="none of 1 cases ran"):
        report([result("cannot-run")], engine="sglang", subject=SUBJECT, named=True)
