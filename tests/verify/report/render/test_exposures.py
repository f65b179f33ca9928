"""Whatever a format says of a place, reach, launch and needs, is true of that place."""

import re
from dataclasses import replace
from html import unescape

import pytest

from verify.report import causes
from verify.report.render import render
from verify.report.report import Finding, Report

FIRST = Finding(
    rule="lost-addend",
    message="each rank has its own rows",
    file="sglang/srt/models/m0.py",
    line=1,
    takes=("z_size > 1",),
    reach="option",
    launch=("--x-size", "2"),
)
FINDINGS = (
    replace(FIRST, file="sglang/srt/models/m3.py", reach="conditional", needs=("a GPU with z",)),
    replace(FIRST, file="sglang/srt/models/m2.py", launch=("--y-size", "2", "--z")),
    FIRST,
    replace(FIRST, file="sglang/srt/models/m1.py"),
)
REPORT = Report(command="scan", title="t", summary="s", payload={}, sections=(), findings=FINDINGS)
TRUE = {
    ("m0", "option", "x", False),
    ("m1", "option", "x", False),
    ("m2", "option", "y", False),
    ("m3", "conditional", "x", True),
}
SHOWN_IN = (("table", False), ("table", True), ("html", False), ("markdown", False))
SHOWN_IN += (("digest", False),)


def said(format_name, everything):
    """Of each place, wherever it stands, what stands last before it."""
    shown = render(replace(REPORT, everything=everything), format_name=format_name)
    text = unescape(re.sub(r"<[^>]+>", "", shown))
    told = set()
    for at in re.finditer(r"\b(m\d)\.py:1\b", text):
        before = text[: at.start()]
        launch = list(re.finditer(r"--([xy])-size", before))[-1]
        reach = re.findall(r"\b(?:option|conditional)\b", before)[-1]
        needs = "a gpu with z" in before[launch.end() :].lower()
        told.add((at[1], reach, launch[1], needs))
    return told


@pytest.mark.parametrize(("format_name", "everything"), SHOWN_IN)
def test_each_place_stands_under_its_own_reach_launch_and_needs(format_name, everything):
    assert said(format_name, everything) == TRUE


@pytest.mark.parametrize(("format_name", "everything"), SHOWN_IN)
def test_places_that_are_not_told_apart_are_noticed(monkeypatch, format_name, everything):
    alike = FIRST.reach, FIRST.launch, FIRST.needs
    monkeypatch.setattr(causes, "_takes", lambda _: alike)
    assert said(format_name, everything) != TRUE


def test_the_first_screen_says_of_how_many_places_its_launch_is():
    lines = render(REPORT, format_name="table").splitlines()
    assert " 1 option  2 of 4 places  --x-size 2" in lines
    assert "   m0.py:1, m1.py:1; 2 under other launches or needs" in lines
    assert "   Holds    for 2 of 4 places; the rest under other launches or needs, below" in lines


def test_one_launch_for_all_is_said_once():
    same = replace(REPORT, findings=FINDINGS[2:])
    text = render(same, format_name="table")
    assert " 1 option  2 places  --x-size 2" in text
    assert "Holds" not in text
    assert text.count("--x-size") == 2


def test_a_cause_stays_one_and_shows_its_plainest_place_first():
    (cause,) = causes.causes_of(FINDINGS)
    assert [one.indices for one in cause.exposures] == [(2, 3), (1,), (0,)]
    assert cause.shown in cause.exposures[0].findings


@pytest.mark.parametrize("format_name", ["table", "html", "digest"])
@pytest.mark.parametrize("part", ["message", "sums", "fix", "rows"])
def test_words_of_one_place_are_not_said_of_the_others(format_name, part):
    own = {"message": "other words", "sums": "another", "fix": "mend it", "rows": ("0001",)}
    findings = (FIRST, replace(FIRST, file="sglang/srt/models/m1.py", **{part: own[part]}))
    for shown, marked in ((findings, True), ((FIRST, findings[0]), False)):
        text = render(replace(REPORT, findings=shown), format_name=format_name)
        assert ("Example" in text) is marked
