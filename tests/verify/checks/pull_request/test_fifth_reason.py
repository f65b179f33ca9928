"""One more entry in the one list of reasons: rows, tables and findings follow."""

import json
from collections.abc import Callable

import pytest

from helper import SKIP_REASONS, SkipReason, reasons
from oracles import SITES
from verify.checks.pull_request import explain
from verify.checks.pull_request.readings import compare
from verify.checks.pull_request.report import build
from verify.report.render import render
from verify.report.report import GridSection, Report, TableSection

KINDS: dict[str, Callable[[], bool] | None] = {"configured": lambda: True, "received": None}


@pytest.fixture(params=KINDS)
def fifth(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SkipReason:
    reason = SkipReason(
        flag="NW",
        name="a_new_step",
        paths=("EP", "TP"),
        completed_by="a step nobody has written yet",
        step="a new step",
        over="tp",
        form="in place",
        completes=lambda config, layer: layer.next == "stage end",
        value=KINDS[request.param],
    )
    monkeypatch.setattr(reasons, "SKIP_REASONS", (*SKIP_REASONS, reason))
    return reason


@pytest.fixture
def report(fifth: SkipReason) -> Report:
    return build()


def table(report: Report, title: str) -> TableSection:
    (found,) = (s for s in report.sections if isinstance(s, TableSection) and s.title == title)
    return found


def test_32_rows(report: Report) -> None:
    (grid,) = (s for s in report.sections if isinstance(s, GridSection))
    assert grid.flags == ("AF", "RS", "DP", "FI", "NW")
    assert len(grid.rows) == 32
    assert {len(line.cells) for line in grid.lines} == {32}


def test_json_rows_have_the_new_column(report: Report) -> None:
    payload = json.loads(render(report, format_name="json"))
    assert payload["flags"] == ["AF", "RS", "DP", "FI", "NW"]
    bits = [
        row
        for site in payload["sites"]
        for rows in (*site["diffs"].values(), site["unexpected"], payload["reachable_rows"])
        for row in rows
    ]
    assert bits
    assert {len(row) for row in bits} == {5}


def test_every_site_is_named_as_not_knowing_it(report: Report) -> None:
    rows = table(report, "Original guards that did not know a reason of their path").rows
    (flag, count, where) = rows[-1]
    assert (flag, count) == ("NW", "22")
    for site in SITES:
        assert f"{site.model} {site.path}" in where


def test_every_original_differs_once_the_helper_is_handed_it(report: Report) -> None:
    payload = json.loads(render(report, format_name="json"))
    for site in payload["sites"]:
        assert "00001" in site["diffs"]["passed"]
        assert site["unknown"][-1] == "NW"


def test_a_reason_read_from_the_configuration_is_an_unexpected_diff_everywhere(
    fifth: SkipReason, report: Report
) -> None:
    named = [finding.subject for finding in report.findings]
    if fifth.value is None:
        # forward() does not receive it and the call does not pass it: `signature` has it False
        assert named == []
    else:
        assert named == [site.id for site in SITES]
        assert {finding.row for finding in report.findings} == {"00001"}


def test_the_list_of_reasons_shows_it(report: Report) -> None:
    assert table(report, "Skip reasons").rows[-1] == (
        "NW",
        "EP TP",
        "a_new_step",
        "a step nobody has written yet",
        "tp",
    )


def test_explain_has_its_column_and_its_rows(fifth: SkipReason) -> None:
    (comparison,) = compare(SITES[:1])
    rows = table(explain.explain(comparison), "Who completes the sum, by row")
    assert rows.columns[:5] == ("AF", "RS", "DP", "FI", "NW")
    assert len(rows.rows) == 32
    assert "NW" in rows.rows[1][7]


@pytest.mark.parametrize("format_name", ["table", "markdown", "json"])
def test_every_format_shows_it(report: Report, format_name: str) -> None:
    assert "NW" in render(report, format_name=format_name)
