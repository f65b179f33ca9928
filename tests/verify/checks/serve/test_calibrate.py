"""A tolerance is measured, and passes only where the case's own corruptions show far beyond it."""

import math

import pytest

from verify.checks.serve import calibrate


@pytest.mark.parametrize(
    ("distance", "allowed", "least", "outcome"),
    [
        (1e-6, 1e-4, 1.0, "exact"),
        (1e-6, 1e-4, 1e-3, "exact"),
        # a corruption would show by less than ten times what is allowed
        (1e-6, 1e-4, 9.9e-4, "ill-conditioned"),
        (1e-6, 1e-4, 0.0, "ill-conditioned"),
        (1e-6, 1e-4, None, "ill-conditioned"),
        (1e-3, 1e-4, 1.0, "diverged"),
        (math.inf, 1e-4, None, "diverged"),
        (0.0, None, 1.0, "ill-conditioned"),
        (0.0, 0.0, 1.0, "ill-conditioned"),
        (0.0, math.inf, math.inf, "ill-conditioned"),
        (math.nan, 1e-4, 1.0, "diverged"),
    ],
)
def test_a_pass_takes_a_known_tolerance_far_below_what_a_corruption_gives(
    distance, allowed, least, outcome
):
    assert calibrate.verdict(distance, allowed, least) == outcome


def spoiled(seen, nats, **change):
    return calibrate.Corruption(change=change or {"slice": "w", "rank": 1}, nats=nats, seen=seen)


def test_what_is_of_no_use_and_what_did_not_run_is_no_measure():
    several = [
        spoiled("unused", 0.0),
        spoiled("sizes-differ", None),
        spoiled("diverged", 2.0),
        spoiled("not-seen", 1e-6),
    ]
    assert calibrate.smallest(several) == 1e-6
    assert calibrate.smallest(several[:3]) == 2.0
    assert calibrate.smallest(several[:2]) is None
    # what a module's value shows need not reach the log-probabilities
    assert calibrate.smallest([*several[:3], spoiled("in-module", 0.0)]) == 2.0
    assert calibrate.smallest([spoiled("in-module", 0.0)]) == math.inf
    assert calibrate.hidden(several, allowed=0.1) == [several[0], several[3]]


def case_of(serve, model, *words):
    code = serve("--model", model, "--layout", "tp2", *words)
    (case,) = serve.report["cases"] if serve.report else [None]
    return code, case


def test_the_tolerance_is_ten_times_the_furthest_of_three_draws(serve):
    code, case = case_of(serve, "good")
    assert (code, case["outcome"]) == (0, "exact")
    assert case["tolerance"] == pytest.approx(10 * 3 * 2.0**-23, rel=0.2)
    assert [row["nats"] for row in case["corruptions"]] == [1.0, 1.0]
    assert case["corruptions"][0] == {
        "where": "srt/models/toy.py:7 model.layers.* all_reduce of 2",
        "how": "doubled",
        "nats": 1.0,
        "seen": "diverged",
        "module": None,
    }


@pytest.mark.parametrize(
    ("model", "why"),
    [
        # not seen although it is of use, seen by too little, and not even twice the same
        ("shy", "moves 0"),
        ("weak", "moves 1e-05"),
        ("moody", "answers differently"),
    ],
)
def test_a_case_that_would_miss_its_own_corruption_is_no_pass(serve, model, why):
    serve("--model", model, "--model", "good", "--layout", "tp2")
    first, second = serve.report["cases"]
    assert (first["outcome"], second["outcome"]) == ("ill-conditioned", "exact")
    assert why in first["reason"]
    # the log-probabilities agree, and the module whose output does not is named all the same
    assert first["module"] == "model.layers.1"


def test_a_collective_whose_result_nobody_reads_is_shown_to_be_unused(serve):
    code, case = case_of(serve, "unused")
    assert (code, case["outcome"]) == (0, "exact")
    assert [row["seen"] for row in case["corruptions"]] == ["unused", "diverged"]


def test_a_corruption_that_a_norm_hides_is_looked_for_in_what_modules_make(serve):
    code, case = case_of(serve, "normed")
    assert (code, case["outcome"]) == (0, "exact")
    first, second = case["corruptions"]
    assert (first["seen"], first["module"], first["nats"]) == ("in-module", "norm", 0.0)
    assert (second["seen"], second["module"]) == ("diverged", None)


def test_a_corruption_that_ends_the_run_ends_no_case(serve):
    code, case = case_of(serve, "brittle", "--corruptions")
    assert (code, case["outcome"], case["dlogprob"]) == (0, "exact", 0.0)
    seen = [(row["how"], row["seen"], row["nats"]) for row in case["corruptions"]]
    assert ("doubled", "sizes-differ", None) in seen
    assert ("zero", "diverged", 1.0) in seen
    # each was tried once more at most: those behind the one that ended a run are in the next
    assert len(case["corruptions"]) == len(
        {(row["where"], row["how"]) for row in case["corruptions"]}
    )


def test_what_was_said_before_a_run_ended_counts(serve):
    """`late` ends at its second slice, the last of a run with three changes."""
    code, case = case_of(serve, "late", "--corruptions")
    assert (code, case["outcome"]) == (0, "exact")
    seen = {row["where"].split()[0]: row["seen"] for row in case["corruptions"]}
    assert seen == {
        "srt/models/toy.py:7": "diverged",
        "w": "diverged",
        "v": "cannot-run",
        "u": "diverged",
    }
    # one rank, the layout's own, and slices until one of them ended and behind it
    runs = [line for line in serve.ran() if line.startswith("late-0 2")]
    assert len(runs) == 4


def test_a_divergence_names_the_module_and_the_counts(serve):
    code, case = case_of(serve, "wrong")
    assert (code, case["outcome"], case["module"]) == (1, "diverged", "model.layers.1")
    (finding,) = serve.report["findings"]
    assert "first in model.layers.1, prefill, rank 0, 1 of 1 rows: 2x of" in finding["message"]


def test_corruptions_tries_other_groups_and_every_slice(serve):
    code, case = case_of(serve, "good", "--corruptions")
    assert code == 0
    assert {(row["how"], row["where"].split()[0]) for row in case["corruptions"]} == {
        ("doubled", "srt/models/toy.py:7"),
        ("over tp:0", "srt/models/toy.py:7"),
        ("zero", "w"),
        ("zero", "v"),
    }


def test_each_seed_is_a_row(serve):
    serve("--model", "good", "--layout", "tp2", "--seed", "3", "--seed", "4", "--seed", "3")
    assert [case["seed"] for case in serve.report["cases"]] == [3, 4]
