"""Rules: every id that the tool can emit has help."""

import re
from pathlib import Path

import pytest

import verify
from verify.rules import LEVELS, RULES, rule

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
    named = {
        match[1]
        for file in PACKAGE.rglob("*.py")
        for match in re.finditer(r"""\brule=["']([a-z][a-z-]+)["']""", file.read_text("utf-8"))
    }
    assert named <= set(RULES)


def test_an_unlisted_rule_still_has_a_title():
    assert rule("not-listed").title == "not listed"
