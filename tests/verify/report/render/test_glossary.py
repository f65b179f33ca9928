"""The tool's own words are explained where they stand, and no others."""

import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from gpu_tests._cli import main as run_ranks
from gpu_tests.judge import SEVERITY
from verify.checks.pull_request.readings import READINGS
from verify.checks.scan.scan import VERDICTS
from verify.checks.serve.case import OUTCOMES
from verify.cli.command_line import COMMANDS, main
from verify.engines.sglang.package import Generation
from verify.report.render import html, table
from verify.report.render.glossary import WORDS, glossary
from verify.report.render.page import Page
from verify.report.report import Finding, Report, TableSection

SAMPLE = str(Path(__file__).parents[3] / "samples" / "mini_sglang")
SITE = "qwen3_moe/Qwen3MoeSparseMoeBlock.forward_normal/EP"
# command -> words that a newcomer did not understand and that stand in its output
SHOWN = {
    "report": (["report"], {"row", "site", "signature", "conditional", "expected"}),
    "report --judge": (["report", "--judge"], {"row", "diff"}),
    "explain": (["explain", SITE], {"row", "site"}),
    "scan": (["scan", SAMPLE], {"open-coded", "self-contained", "unresolved", "set aside"}),
    "scan --all": (["scan", SAMPLE, "--all"], {"row", "guard", "finding", "covered", "site"}),
    "prove": (["prove", "--max-ranks", "2"], {"subject", "cause", "case", "in a block", "row"}),
}
EMPTY = Report(command="scan", title="t", summary="s", payload={}, sections=(), findings=())


def explained(text):
    """The words of the list that a text output ends with."""
    _, _, listed = text.partition("\nWords\n")
    return {re.split(r"\s{2,}", line)[0] for line in listed.splitlines() if line[:1] != " "}


@pytest.mark.parametrize("name", SHOWN)
def test_words_are_explained_below_what_uses_them(name, capsys):
    arguments, wanted = SHOWN[name]
    assert main([*arguments, "-q"]) in (0, 1)
    assert wanted <= explained(capsys.readouterr().out)


def test_those_of_ranks_too(capsys):
    assert run_ranks(["--world-size", "1", "--model", "qwen3_moe", "-q"]) == 0
    assert {"exact", "ledger"} <= explained(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("scan", {*get_args(Generation)} - {"unknown"}),
        ("scan", {"set aside", *VERDICTS}),
        ("report", set(READINGS)),
        ("serve", set(OUTCOMES)),
        ("gpu_tests", set(SEVERITY) - {"not prepared"}),
        ("replay", {"exact", "double", "missing", "mixed", "crash", "hang", "cannot run"}),
    ],
)
def test_every_outcome_of_a_command_is_explained(command, words):
    assert words <= set(WORDS[command])


def test_commands_are_commands():
    assert set(WORDS) <= {*COMMANDS, "gpu_tests"}


def test_a_word_that_does_not_occur_is_not_explained():
    assert glossary(EMPTY, sections=()) == {}
    assert set(glossary(replace(EMPTY, summary="1 covered"), sections=())) == {"covered"}
    assert set(glossary(replace(EMPTY, summary="uncovered, wrongly"), sections=())) == set()
    assert "Words" not in table.render(EMPTY)
    assert 'id="words"' not in html.render(EMPTY)


def test_what_is_not_shown_is_not_explained_but_with_all_of_it():
    section = TableSection(title="t", columns=("guard",), rows=(("x",),), more=True)
    report = replace(EMPTY, sections=(section,))
    assert "Words" not in table.render(report)
    assert "guard" in explained(table.render(replace(report, everything=True)))


def test_a_row_is_explained_where_one_is_shown():
    finding = Finding(rule="r", message="m", row="0010")
    report = replace(EMPTY, findings=(finding,))
    assert "row" not in explained(table.render(report))
    assert "row" in explained(table.render(replace(report, everything=True)))
    assert "<dt>row</dt>" in html.render(report)


def test_lines_fit_the_page():
    words = " ".join({word for known in WORDS.values() for word in known})
    for command in WORDS:
        report = replace(EMPTY, command=command, summary=words)
        text = table.render(report, on=Page(width=80))
        assert explained(text) >= set(WORDS[command])
        assert max(map(len, text.splitlines())) <= 80


def test_a_pointer_is_told_what_a_word_means():
    section = TableSection(title="t", columns=("guard",), rows=(("x",),))
    page = html.render(replace(EMPTY, summary="2 set aside <", sections=(section,)))
    known = WORDS["scan"]
    assert f'2 <abbr title="{known["set aside"]}">set aside</abbr> &lt;' in page
    assert f'<abbr title="{known["guard"]}">guard</abbr></th>' in page
