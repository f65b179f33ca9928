"""Odd but legal values: nothing, one of everything, many flags, many ranks, many sites."""

import re
from dataclasses import replace
from itertools import product

import html5lib
import pytest

from verify.report.render import RENDERERS, render
from verify.report.render.html import findings_of
from verify.report.report import Finding, GridLine, GridSection, RanksSection, Report, TableSection

EMPTY = Report(command="scan", title="t", summary="s", payload={}, sections=(), findings=())


def bits(count):
    return tuple("".join(row) for row in product("01", repeat=count))


def grid(*, flags, lines):
    rows = bits(flags)
    cells = tuple(("skip", "reduce", "expected", "unexpected")[i % 4] for i in range(len(rows)))
    return GridSection(
        title="grid",
        flags=tuple(f"F{index}" for index in range(flags)),
        rows=rows,
        lines=tuple(
            GridLine(
                label=f"model_{index}/SomeSparseMoeBlock.forward_normal_dual_stream/TP",
                cells=cells,
                facets={"model": f"model_{index}", "verdict": "covered"},
            )
            for index in range(lines)
        ),
    )


def ranks(count):
    counts = tuple(tuple((r + s) % 3 for s in range(count)) for r in range(count))
    groups = {"EP": tuple((rank,) for rank in range(count))}
    return RanksSection(title="ranks", groups=groups, counts=counts)


SHAPES = {
    "nothing": EMPTY,
    "table without rows": replace(
        EMPTY, sections=(TableSection(title="", columns=("a", "verdict"), rows=()),)
    ),
    "table of verdicts alone": replace(
        EMPTY, sections=(TableSection(title="", columns=("verdict",), rows=(("covered",),)),)
    ),
    "grid without lines": replace(EMPTY, sections=(grid(flags=4, lines=0),)),
    "grid of no flags": replace(EMPTY, sections=(grid(flags=0, lines=1),)),
    "grid of six flags": replace(EMPTY, sections=(grid(flags=6, lines=2),)),
    "no ranks": replace(EMPTY, sections=(ranks(0),)),
    "one rank": replace(EMPTY, sections=(ranks(1),)),
    "64 ranks": replace(EMPTY, sections=(ranks(64),)),
    "a rank in no group": replace(
        EMPTY, sections=(RanksSection(title="r", groups={"EP": ((0,),)}, counts=((1, 1), (1, 1))),)
    ),
    "a finding that says nothing": replace(EMPTY, findings=(Finding(rule="", message=""),)),
    "a finding at no line": replace(
        EMPTY, findings=(Finding(rule="x-y", message="", file="a.py"),)
    ),
}


@pytest.mark.parametrize("format_name", RENDERERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_format_takes_every_shape(shape, format_name):
    assert render(SHAPES[shape], format_name=format_name)


@pytest.mark.parametrize("shape", SHAPES)
def test_html_is_html(shape):
    assert html_errors(SHAPES[shape]) == []


@pytest.mark.parametrize("name", ["sample_report", "hostile_report"])
def test_html_of_real_and_hostile_reports_is_html(name, request):
    assert html_errors(request.getfixturevalue(name)) == []


def html_errors(report):
    parser = html5lib.HTMLParser()
    parser.parse(render(report, format_name="html"))
    return [(position, error) for position, error, _ in parser.errors]


def test_html_of_a_whole_release_stays_under_a_megabyte():
    rows = tuple(
        (f"models/file_{i}.py:{i}", "guard " * 12, "covered", "why " * 20) for i in range(600)
    )
    table = TableSection(title="t", columns=("site", "guard", "verdict", "why"), rows=rows)
    findings = tuple(
        Finding(rule="missing-skip", message="message " * 30, file=f"a{i}.py", line=i, row="0010")
        for i in range(200)
    )
    many = replace(EMPTY, sections=(grid(flags=4, lines=400), table), findings=findings)
    assert 400_000 < len(render(many, format_name="html").encode()) < 1_000_000


def test_a_short_table_is_not_filtered():
    rows = tuple((f"m{i}", "holds") for i in range(12))
    table = TableSection(title="t", columns=("model", "verdict"), rows=rows)
    page = render(replace(EMPTY, sections=(table,)), format_name="html")
    assert '<form class="filters"' not in page
    assert 'class="item"' not in page


def test_findings_stand_with_the_line_they_are_about():
    line = GridLine(label="oak/OakBlock.forward/TP", cells=("skip",), facets={})
    section = GridSection(title="g", flags=(), rows=("",), lines=(line,))
    at_the_method = Finding(
        rule="x-y", message="", file="sglang/srt/models/oak.py", cls="OakBlock", method="forward"
    )
    of_the_site = Finding(rule="x-y", message="", subject=line.label)
    elsewhere = replace(at_the_method, method="other")
    report = replace(EMPTY, sections=(section,), findings=(at_the_method, of_the_site, elsewhere))
    assert findings_of(line, report) == (at_the_method, of_the_site)


def test_letters_go_on_after_z():
    text = render(replace(EMPTY, sections=(ranks(30),)), format_name="html")
    assert ">Z</span>" in text
    assert ">AD</span>" in text


def test_junit_fails_as_often_as_there_are_findings(sample_report):
    more = replace(sample_report, findings=sample_report.findings * 4)
    assert '" failures="8" ' in render(more, format_name="junit").splitlines()[1]


def test_annotations_are_worst_first_and_ten(sample_report):
    lost, double = sample_report.findings
    stale = Finding(rule="stale-expectation", message="stale")
    many = replace(sample_report, findings=(stale, *(lost,) * 8, *(double,) * 4))
    lines = render(many, format_name="github").splitlines()
    # of one level one of each cause, then the rest
    assert [line.partition("title=")[2].partition("%")[0] for line in lines[:10]] == (
        ["missing-skip", "lost-sum"] + ["missing-skip"] * 3 + ["lost-sum"] * 5
    )
    assert lines[10:] == [
        "::notice title=moe-allreduce-verify::3 more findings; the job summary has all"
    ]


def finding_at(number, **changes):
    values = {"rule": "lost-addend", "message": "m", "file": f"sglang/srt/models/m{number}.py"}
    return Finding(line=number + 1, **{**values, **changes})


def test_reach_makes_annotations_quieter_and_later():
    hard = finding_at(0, takes=("z",), reach="conditional")
    some = finding_at(1, takes=("y",), reach="option")
    easy = finding_at(2, reach="default")
    lines = render(replace(EMPTY, findings=(hard, some, easy)), format_name="github").splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["::error", "::warning", "::notice"]
    assert "m2.py" in lines[0]


def test_no_milder_annotation_takes_a_worse_one_s_place():
    counts = ((0, 1), (1, 0))
    mild = tuple(
        finding_at(n, takes=(f"x{n}",), reach="conditional", counts=counts) for n in (0, 1)
    )
    some = tuple(finding_at(n, takes=(f"y{n % 2}",), reach="option") for n in range(2, 8))
    bad = tuple(finding_at(n, reach="default", takes=("z",)) for n in range(8, 12))
    report = replace(EMPTY, findings=(*mild, *some, *bad))
    files = re.findall(r"/(m\d+)\.py", render(report, format_name="github"))
    assert set(files[:4]) == {"m8", "m9", "m10", "m11"}
    assert set(files[4:6]) == {"m2", "m3"}
    assert set(files) == {f"m{n}" for n in range(2, 12)}


def test_what_annotations_leave_out_is_in_the_job_summary():
    many = tuple(finding_at(n, takes=("x > 1",), reach="option") for n in range(30))
    report = replace(EMPTY, findings=many)
    assert "20 more findings" in render(report, format_name="github")
    digest = render(report, format_name="digest")
    assert all(f"`m{n}.py:{n + 1}`" in digest for n in range(30))


def test_concise_is_a_line_a_finding():
    both = (
        finding_at(1, sums="nobody", reach="default"),
        Finding(rule="a-b", message="no place", subject="s"),
    )
    assert render(replace(EMPTY, findings=both), format_name="concise").splitlines() == [
        "sglang/srt/models/m1.py:2: lost-addend: m; nobody",
        "s: a-b: no place",
    ]


def test_a_table_of_sites_is_filtered_by_model_too():
    rows = tuple((f"models/m{i % 2}.py:{i} Block.forward TP", "covered") for i in range(13))
    table = TableSection(title="t", columns=("site", "verdict"), rows=rows)
    page = render(replace(EMPTY, sections=(table,)), format_name="html")
    assert "<option>m0</option><option>m1</option>" in page
    assert page.count('class="item" data-f0="m0"') == 7


def test_a_mixed_finding_s_drawing_says_that_other_tokens_are_in_it(sample_report):
    """Counts of a rank's own tokens look doubled, or even right, where others' are in the sums."""
    first = sample_report.findings[0]
    note = "Other tokens are in the sums as well."
    for kind, said in (("mixed", True), ("double", False)):
        finding = replace(first, kind=kind, counts=((2, 2), (2, 2)))
        assert (
            note in render(replace(sample_report, findings=(finding,)), format_name="html")
        ) is said
