"""The first screen says what is wrong, where and what to type; drawings say what words say."""

import sys
from dataclasses import replace
from itertools import takewhile

import pytest

from verify.report.render import table
from verify.report.render.counts_text import counts_lines
from verify.report.render.page import Page
from verify.report.report import LEAVES, Finding, Related, Report, TableSection

PAGE = Page(width=80)
EMPTY = Report(command="scan", title="t", summary="s", payload={}, sections=(), findings=())
OAK = Finding(
    rule="lost-addend",
    message="with x, each rank has its own rows",
    sums="nobody: it stays as it is",
    fix="build it replicated",
    kind="lost",
    file="sglang/srt/models/oak.py",
    line=2,
    cls="Block",
    method="forward",
    row="0010",
    rows=("0000", "0010"),
    takes=("x_size > 1",),
    reach="option",
    launch=("--tp-size", "2", "--x-size", "2"),
    related=(Related(file="sglang/srt/models/oak.py", line=5, what="hands it to the next"),),
)
CODE = {"sglang/srt/models/oak.py": {1: "def f():", 2: "    a = 1", 3: "", 5: "    return a"}}


def shown(*findings, **changes):
    report = replace(EMPTY, findings=findings, code=CODE, requirement="sglang==9.9.9", **changes)
    return table.render(report, on=PAGE).splitlines()


def test_the_first_screen_of_six_causes_is_24_lines():
    many = [replace(OAK, takes=(f"x{n} > 1",)) for n in range(6)]
    lines = shown(*many)
    assert lines[23].startswith("More")
    first = "\n".join(lines[:24])
    assert "oak.py:2" in first
    assert "--tp-size 2 --x-size 2" in first
    assert "python -m verify replay sglang==9.9.9 --model oak" in first


def test_a_block_says_what_who_and_what_to_do_with_the_source():
    text = "\n".join(shown(OAK))
    for part in (
        "   What     With x, each rank has its own rows.",
        "   Who sums Nobody: it stays as it is.",
        "   Repair   Build it replicated.",
        "   Reach    option: needs options of the server; x_size above 1",
        "   Launch   --tp-size 2 --x-size 2",
        "   Flags    no flag, DP",
        "   >     2      a = 1",
        "   sglang/srt/models/oak.py:5  hands it to the next",
        "   >     5  return a",
        "DP  dp_reduce_scatterv;",
    ):
        assert part in text
    assert "AF  should" not in text


def test_counts_are_drawn_where_there_are_some():
    text = "\n".join(shown(replace(OAK, counts=((1, 0), (0, 1)))))
    assert "   partial of 0  1  -\n   partial of 1  -  1\n   1 is right; 2 of 4 missing (-)" in text
    assert "partial of" not in "\n".join(shown(OAK))


def test_what_to_type_is_called_as_it_was_called(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/moe-allreduce-verify", "scan"])
    assert "Rule 1   moe-allreduce-verify rule lost-addend" in shown(OAK)
    monkeypatch.setattr(sys, "argv", ["/somewhere/verify/__main__.py", "scan"])
    assert "Rule 1   python -m verify rule lost-addend" in shown(OAK)


def test_one_is_singular():
    assert shown(OAK)[1].startswith("1 cause, 1 finding, 1 model; ")
    two = shown(OAK, replace(OAK, file="sglang/a/elm.py"))
    assert two[1].startswith("1 cause, 2 findings, 2 models; ")


def test_all_shows_each_finding_by_itself():
    other = replace(OAK, file="sglang/srt/models/elm.py", conditions=("config.n > 1",))
    assert "config.n > 1" not in "\n".join(shown(OAK, other))
    assert "config.n > 1" in "\n".join(shown(OAK, other, everything=True))


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (((1, 1), (1, 1)), "each once"),
        (((1, 0), (0, 1)), "1 is right; 2 of 4 missing (-)"),
        (((2, 2), (2, 2)), "1 is right; 4 of 4 too often"),
        (((2, 0), (1, 1)), "1 is right; 1 of 4 missing (-), 1 of 4 too often"),
    ],
)
def test_a_drawing_says_what_the_words_say(counts, words):
    lines = [line.plain for line in counts_lines(replace(OAK, counts=counts), PAGE, indent="")]
    assert lines[-1] == words
    drawn = [line.split()[3:] for line in lines[1:-1]]
    for source, row in enumerate(drawn):
        assert row == [str(counts[rank][source] or "-") for rank in range(2)]


def test_mixed_says_that_other_tokens_are_in_it():
    mixed = replace(OAK, kind="mixed", counts=((2, 2), (2, 2)))
    lines = [line.plain for line in counts_lines(mixed, PAGE, indent="")]
    assert lines[-1] == "1 is right; 4 of 4 too often, other tokens are in the sums as well"


@pytest.mark.parametrize("width", [40, 80])
def test_counts_of_one_token_say_so(width):
    finding = replace(OAK, counts=((1, 1), (0, 0)), counts_of="a token of rank 0")
    lines = [line.plain for line in counts_lines(finding, Page(width=width), indent="   ")]
    assert " ".join(" ".join(lines[3:]).split()) == (
        "1 is right; 2 of 4 missing (-); counted for a token of rank 0"
    )
    assert max(map(len, lines)) <= width


def test_a_name_longer_than_the_page_is_broken_after_its_parts():
    names = ("config.get_nemotron_h_config_for_layer(layer_idx).n_shared_experts", "x" * 200)
    lines = shown(replace(OAK, conditions=names), everything=True)
    assert max(map(len, lines)) <= 80
    assert "     Where    config.get_nemotron_h_config_for_layer(layer_idx)." in lines
    text = "".join(line.strip().removeprefix("Where").strip() for line in lines)
    assert all(name in text for name in names)


def test_more_ranks_than_fit_are_counted():
    counts = tuple((1,) * 64 for _ in range(64))
    lines = [line.plain for line in counts_lines(replace(OAK, counts=counts), PAGE, indent="  ")]
    assert max(map(len, lines)) <= 80
    assert lines[-1].strip().startswith("the first ")


@pytest.mark.parametrize("width", [40, 80, 120])
def test_every_line_fits(width):
    report = replace(EMPTY, findings=(replace(OAK, message="word " * 60),), code=CODE)
    lines = table.render(report, on=Page(width=width)).splitlines()
    assert max(map(len, lines)) <= width


def many_without_a_place(count):
    counts = ((1, 0, 1, 0), (0, 1, 0, 1), (1, 0, 1, 0), (0, 1, 0, 1))
    return [
        Finding(
            rule="ledger-missing",
            message=f"tp=4 case={number}: nobody sums",
            fix="sum",
            kind="missing",
            subject=", ".join(f"{name}/Block.forward" for name in "abcdefgh"),
            row="1000",
            deployment={"tp_size": 4, "case": number},
            counts=counts,
        )
        for number in range(count)
    ]


def test_many_causes_are_300_lines_with_each_one_named():
    findings = many_without_a_place(40)
    lines = shown(*findings)
    assert len(lines) <= 300
    text = "\n".join(lines)
    assert all(f"case={number}: nobody sums" in text for number in range(40))
    (head,) = [place for place, line in enumerate(lines) if line.endswith("whole with --all")]
    whole = sum(line.startswith("   Repair ") for line in lines)
    assert lines[head] == f"{40 - whole} causes more, whole with --all"
    assert lines[head + 1].startswith(f"{whole + 1} ")
    assert "a/Block.forward, b/Block.forward, c/Block.forward and 5 more" in " ".join(text.split())
    everything = "\n".join(shown(*findings, everything=True))
    assert everything.count("\n   Repair ") == 40
    assert "whole with --all" not in everything
    assert "h/Block.forward" in everything


def test_what_is_not_shown_whole_still_says_its_launch():
    launch = ("--tp-size", "4", *(word for n in range(8) for word in (f"--option-{n}", "value")))
    many = [replace(OAK, takes=(f"x{n} > 1",), launch=launch) for n in range(40)]
    lines = shown(*many)
    (head,) = [place for place, line in enumerate(lines) if line.endswith("whole with --all")]
    said = " ".join(" ".join(lines[head:]).split())
    whole = sum(line.startswith("   Repair ") for line in lines)
    assert said.count(" ".join(launch)) == 40 - whole


def test_what_the_first_screen_has_said_is_not_said_again():
    lines = shown(*(replace(OAK, takes=(f"x{n} > 1",), message="word " * 1500) for n in range(10)))
    (head,) = [place for place, line in enumerate(lines) if "whole with --all" in line]
    assert lines[head] == "9 causes more, whole with --all; up to 6 above"
    assert lines[head + 1] == " 7 option  1 place  --tp-size 2 --x-size 2"
    assert lines[head + 2].endswith("(x6 above 1)")


@pytest.mark.parametrize("rows", [1, 100, 150])
def test_a_text_is_as_long_as_it_may_be_whatever_else_it_holds(rows):
    table = TableSection(title="T", columns=("n",), rows=tuple((str(n),) for n in range(rows)))
    lines = shown(*many_without_a_place(40), sections=(table,))
    assert 280 <= len(lines) <= 292


@pytest.mark.parametrize("width", [40, 60, 80])
def test_an_option_stands_beside_its_value(width):
    launch = ("NAME=1", "--a2a-backend", "deepep", "--runner", "deep_gemm", "--flag", "--n", "2")
    report = replace(EMPTY, findings=(replace(OAK, launch=launch),))
    lines = table.render(report, on=Page(width=width)).splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("   Launch "))
    further = takewhile(lambda line: line.startswith(" " * 12), lines[start + 1 :])
    said = [line[12:] for line in (lines[start], *further)]
    assert " ".join(said).split() == list(launch)
    for option in ("--a2a-backend deepep", "--runner deep_gemm", "--n 2"):
        assert any(option in line for line in said)


def test_a_line_that_builds_says_so():
    inner = Related(file="sglang/srt/models/oak.py", line=1, what=LEAVES)
    assert "   sglang/srt/models/oak.py:2  here" in shown(OAK)
    built = shown(replace(OAK, related=(*OAK.related, inner)))
    assert "   sglang/srt/models/oak.py:2  here it is built" in built


def test_ways_to_be_wrong_at_one_place_name_it_once():
    twice = shown(OAK, replace(OAK, row="0001"))
    assert " 1 option  2 places  --tp-size 2 --x-size 2" in twice
    assert "   oak.py:2" in twice
    assert "            oak.py:2" in twice


def test_one_cause_is_shown_however_long_it_is():
    (finding,) = many_without_a_place(1)
    text = "\n".join(shown(replace(finding, message="word " * 5000)))
    assert "Repair" in text
    assert "whole with --all" not in text


def test_causes_of_one_title_are_told_apart_by_the_setting():
    lines = shown(OAK, replace(OAK, takes=("y_size > 1",)))
    assert "   A sharded addend stays where nobody completes its sum (x_size above 1)" in lines
    assert "   A sharded addend stays where nobody completes its sum (y_size above 1)" in lines
