"""Plain tables: folded between words, never cut, as wide as a page or the terminal."""

import os
import sys
from dataclasses import replace

import pytest

from verify.report.render import table
from verify.report.render.page import PIPED_WIDTH, Page
from verify.report.report import Report, TableSection

NAME = "qwen3_moe/Qwen3MoeSparseMoeBlock.forward_normal/EP"
PROSE = "a guard that forgets one of the reasons to skip counts every partial sum twice " * 3


def drawn(*rows, columns=("site", "verdict", "why")):
    section = TableSection(title="Sites", columns=columns, rows=rows)
    report = Report(
        command="scan", title="t", summary="s", payload={}, sections=(section,), findings=()
    )
    shown, _, _ = table.render(report).partition("\n\nWords\n")
    return shown.splitlines()[2:]


def test_prose_is_folded_to_the_page():
    lines = drawn((NAME, "covered", PROSE))
    assert max(map(len, lines)) <= PIPED_WIDTH
    assert [
        word for line in lines[3:] for word in line.split() if word not in (NAME, "covered")
    ] == (PROSE.split())


def test_a_name_is_never_cut():
    names = [f"{NAME}/{'x' * 70}", f"{NAME}/{'y' * 70}"]
    text = "\n".join(drawn((names[0], names[1], PROSE)))
    assert all(name in text for name in names)


def test_numbers_stand_to_the_right_and_rows_do_not():
    lines = drawn(("1", "0010"), ("1,000", "0100"), columns=("number", "row of flags"))
    assert lines[3:] == ["     1   0010", " 1,000   0100"]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_terminal_s_width_is_used(monkeypatch, width):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((width, 24)))
    lines = drawn(("a", "covered", PROSE))
    assert width - 12 < max(map(len, lines)) <= width


def test_columns_count_where_output_is_piped(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert 108 < max(map(len, drawn(("a", "covered", PROSE)))) <= 120


def test_a_wide_first_column_stands_above_the_others():
    name = NAME + "x" * 20
    lines = drawn((name, "covered", "1"), (name, "", "22"), ("oak", "lost", "3"))
    assert lines == [
        "Sites",
        "site",
        "   verdict   why",
        name,
        "   covered     1",
        "              22",
        "oak",
        "   lost        3",
    ]


def test_a_table_that_does_not_fit_is_records():
    lines = drawn((NAME, "covered", "w" * 70), (NAME, "", "short"))
    assert lines == [
        "Sites",
        NAME,
        "  verdict  covered",
        f"  why      {'w' * 70}",
        NAME,
        "  why      short",
    ]


def test_a_truth_table_that_does_not_fit_stands_under_its_sites(sample_report):
    grid = next(s for s in sample_report.sections if hasattr(s, "flags"))
    long = replace(grid, lines=(replace(grid.lines[0], label="x" * 70),))
    text = table.section_text(long, Page(width=80)).splitlines()
    assert max(map(len, text)) <= 80
    assert text[5] == "x" * 70
    assert text[6].split()[0][0] == "R"
