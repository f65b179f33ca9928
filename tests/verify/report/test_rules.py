"""Rules: every id that the tool can emit has help."""

import ast
import re
from pathlib import Path

import pytest

import verify
from verify.checks.replay.overview import WRONG
from verify.cli.command_line import main
from verify.report import about
from verify.report.rules import LEVELS, RULES, rule

PACKAGE = Path(verify.__file__).parent


def test_ids_are_sorted_and_stable_words():
    assert list(RULES) == sorted(RULES)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)+", rule_id) for rule_id in RULES)


@pytest.mark.parametrize("rule_id", RULES)
def test_every_rule_says_what_happens_and_what_to_do(rule_id):
    law = RULES[rule_id]
    assert law.level in LEVELS
    assert not law.title.endswith(".")
    assert law.help.endswith(".")
    assert len(law.help) > 80


def test_every_rule_named_in_the_code_is_listed():
    named = {rule_id for file in PACKAGE.rglob("*.py") for rule_id in named_in(file)}
    assert len(named) > 10
    assert named <= set(RULES)


@pytest.mark.parametrize("kind", WRONG)
def test_every_kind_that_replay_calls_wrong_has_a_rule(kind):
    assert f"replay-{kind.replace(' ', '-')}" in RULES


def named_in(file):
    """Ids that code gives as `rule=`, holds in a mapping called RULES, or returns from rule_of."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        match node:
            case ast.keyword(arg="rule"):
                yield from ids(node.value)
            case ast.FunctionDef(name="rule_of"):
                yield from (
                    i for part in ast.walk(node) if isinstance(part, ast.Return) for i in ids(part)
                )
            case ast.Assign(targets=[ast.Name(id="RULES")], value=value):
                yield from ids(value)
            case ast.AnnAssign(target=ast.Name(id="RULES"), value=ast.expr() as value):
                yield from ids(value)


def ids(node):
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and re.fullmatch(r"[a-z]+(-[a-z]+)+", str(part.value)):
            yield part.value


def test_an_unlisted_rule_still_has_a_title():
    assert rule("not-listed").title == "not listed"


def test_the_page_of_rules_is_what_the_tool_says(capsys):
    """Written by `python -m verify rule --all --format markdown -q > docs/rules.md`."""
    assert main(["rule", "--all", "--format", "markdown", "-q"]) == 0
    page = Path(__file__).parents[3] / about.RULES_PAGE
    assert capsys.readouterr().out == page.read_text(encoding="utf-8")
