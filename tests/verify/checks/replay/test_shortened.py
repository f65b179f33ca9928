"""A whole release's tables are for those who ask for all; what is true of every result stays."""

from dataclasses import replace

import pytest

from verify.checks.replay.overview import MOST_ROWS, shortened
from verify.report.render import render
from verify.report.report import Report, TableSection

SHORT = TableSection(title="Short", columns=("layer",), rows=(("oak",),), notes=("short's note",))
LONG = TableSection(
    title="What was replaced",
    columns=("definition", "by"),
    rows=tuple((f"name{number}", "ours") for number in range(MOST_ROWS + 1)),
    notes=("Attention is replaced by zeros.",),
)


def text(*tables, everything=False):
    report = Report(
        command="replay",
        title="t",
        summary="s",
        payload={},
        sections=shortened(*tables),
        findings=(),
        everything=everything,
    )
    return render(report, format_name="table")


def test_long_tables_are_counted_and_shown_to_those_who_ask_for_all():
    usual, whole = text(SHORT, LONG), text(SHORT, LONG, everything=True)
    assert "name1" not in usual
    (counted,) = [line for line in usual.splitlines() if line.startswith("What was replaced")]
    assert counted.split()[-1] == str(MOST_ROWS + 1)
    assert all(f"name{number}" in whole for number in range(MOST_ROWS + 1))
    for shown in (usual, whole):
        assert "oak" in shown
        assert shown.count("Attention is replaced by zeros.") == 1


@pytest.mark.parametrize("rows", [1, MOST_ROWS])
def test_what_is_short_stays(rows):
    shown = text(replace(LONG, rows=LONG.rows[:rows]))
    assert f"name{rows - 1}" in shown
    assert "--all" not in shown


def test_a_table_without_a_line_is_not_shown():
    assert "Short" not in text(replace(SHORT, rows=()), LONG)
