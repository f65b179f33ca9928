"""A finding of scan says what its launch comes to: a deployment, and counts as prove has them."""

import json
from dataclasses import replace
from typing import Any

import pytest

from verify.checks.scan.counted import ADDENDS, Steps, counted, of_addend, of_sum
from verify.checks.scan.judge import Fault
from verify.interpreter.state import Consumer
from verify.interpreter.values import Place
from verify.report.fingerprint import identity
from verify.report.report import Finding

TP: dict[str, Any] = {"tp_size": 4}
ALONE = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
FIRST = ((1, 0, 0, 0),) * 4
ALL = ((4, 4, 4, 4),) * 4
DP = {"tp_size": 4, "attn_dp_size": 4, "moe_ep_size": 4}


def found(kind: str, row: str = "0000") -> Finding:
    return Finding(rule="lost-addend", message="", kind=kind, row=row, file="a.py")


def shown(kind: str, steps: Steps | None, options: Any, sizes: Any, row: str = "0000") -> Finding:
    return counted(found(kind, row), steps, options, sizes)


@pytest.mark.parametrize(
    ("cause", "kind", "options", "sizes", "counts"),
    [
        ("gathered", "double", TP, TP, ALL),
        ("local-work", "lost", {**TP, "dwdp_size": 4}, DP, ALONE),
        ("local-work", "mixed", {**TP, "dwdp_size": 4}, DP, ((1, 1, 1, 1),) * 4),
        ("backend", "lost", {**TP, "moe_a2a_backend": "oak"}, {**TP, "moe_ep_size": 4}, FIRST),
        ("dense", "lost", {**TP, "moe_dense_tp_size": 1}, TP, FIRST),
        (
            "copies",
            "lost",
            TP,
            {**TP, "attn_cp_size": 2, "moe_dp_size": 2},
            ((1, 1, 0, 0), (1, 1, 0, 0), (0, 0, 1, 1), (0, 0, 1, 1)),
        ),
        ("own-copies", "double", TP, {**TP, "attn_cp_size": 2, "moe_dp_size": 2}, ((2,) * 4,) * 4),
        ("split", "lost", TP, {**TP, "moe_ep_size": 2}, ((1, 0, 1, 0), (0, 1, 0, 1)) * 2),
    ],
)
def test_counts_say_what_the_finding_says(
    cause: Any, kind: str, options: Any, sizes: Any, counts: Any
) -> None:
    finding = shown(kind, of_addend(cause, kind), options, sizes)
    assert finding.counts == counts
    assert finding.deployment is not None
    assert finding.deployment["tp_size"] == 4
    assert set(options) - {"moe_dense_tp_size"} <= finding.deployment.keys()


@pytest.mark.parametrize(
    ("cause", "options", "sizes", "whose"),
    [
        # every token has the same counts, or each rank its own tokens only
        ("gathered", TP, TP, ""),
        ("local-work", {**TP, "dwdp_size": 4}, DP, ""),
        # rows that ranks share out and gather again: each token has its own rank's partial
        ("backend", {**TP, "moe_a2a_backend": "oak"}, TP, "a token of rank 0"),
        ("dense", {**TP, "moe_dense_tp_size": 1}, TP, "a token of rank 0"),
    ],
)
def test_counts_of_one_token_say_whose(cause: Any, options: Any, sizes: Any, whose: str) -> None:
    kind = "double" if cause == "gathered" else "lost"
    finding = shown(kind, of_addend(cause, kind), options, sizes)
    assert finding.counts
    assert finding.counts_of == whose


def fault(kind: Any, row: str, *axes: Any) -> Fault:
    places = tuple(
        Place(file="a.py", line=1, column=0, cls=None, method="f", collective="c", axes=each)
        for each in axes
    )
    consumer = Consumer(kind="boundary", file="a.py", line=1)
    return Fault(
        kind=kind, places=places, consumer=consumer, axis="EP", rows=1 << int(row, 2), conditions=()
    )


@pytest.mark.parametrize(
    ("kind", "row", "axes", "sizes", "counts"),
    [
        ("double", "0010", (("TP",),), DP, ALL),
        ("double", "0100", (("EP",),), {**DP, "moe_ep_size": 2}, ((2,) * 4,) * 4),
        ("lost", "0000", (("EP",),), TP, ALONE),
        ("past the end", "1000", ((),), TP, ALONE),
        ("twice", "0000", (("TP",), ("EP", "TP")), TP, ALL),
        ("combined", "0001", (("EP",),), DP, ALL),
    ],
)
def test_a_sum_that_is_made_twice_or_never(
    kind: Any, row: str, axes: Any, sizes: Any, counts: Any
) -> None:
    wrong = fault(kind, row, *axes)
    assert shown(kind, of_sum(wrong), TP, sizes, row).counts == counts


@pytest.mark.parametrize(
    ("steps", "sizes"),
    [
        (None, TP),
        (of_addend("gathered", "double"), TP),
        (ADDENDS["copies"], TP),
        (ADDENDS["copies"], {"tp_size": 4, "attn_dp_size": 3}),
    ],
)
def test_what_the_launch_does_not_show_is_not_counted(steps: Any, sizes: Any) -> None:
    """A wrong step, one copy, a size that divides nothing: no counts are better than wrong ones."""
    assert shown("lost", steps, TP, sizes) == found("lost")


def test_a_finding_stays_itself() -> None:
    """Baselines follow it by its place: what a launch comes to is none of its identity."""
    before = replace(found("double"), launch=("--tp-size", "4"))
    after = counted(before, of_addend("gathered", "double"), TP, TP)
    assert after.deployment
    assert identity(after.as_json()) == identity(before.as_json())
    assert identity(after.as_json()) == identity(json.loads(json.dumps(found("double").as_json())))
