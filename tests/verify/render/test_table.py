"""Plain tables: folded between words, never cut, as wide as a page or the terminal."""

import os
import sys
from dataclasses import replace

import pytest

from verify.render import table
from verify.report import Report, TableSection

NAME = "qwen3_moe/Qwen3MoeSparseMoeBlock.forward_normal/EP"
PROSE = "a guard that forgets one of the reasons to skip counts every partial sum twice " * 3


def drawn(*rows, columns=("site", "verdict", "why")):
    section = TableSection(title="Sites", columns=columns, rows=rows)
    report = Report(
        command="scan", title="t", summary="s", payload={}, sections=(section,), findings=()
    )
    return table.render(report).splitlines()[2:]


def test_prose_is_folded_to_the_page():
    lines = drawn((NAME, "covered", PROSE))
    assert max(map(len, lines)) <= table.PIPED_WIDTH
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
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((width, 24)))
    lines = drawn(("a", "covered", PROSE))
    assert width - 12 < max(map(len, lines)) <= width


def test_findings_fold_under_their_place(sample_report):
    finding = replace(sample_report.findings[1], message=PROSE)
    report = replace(sample_report, sections=(), findings=(finding,))
    first, second, *_ = table.render(report).splitlines()[3:]
    assert first.startswith("  sglang/srt/models/cedar.py:213 [missing-skip] a guard")
    assert second.startswith("      ")
    assert len(first) <= table.PIPED_WIDTH
