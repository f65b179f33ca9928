"""A rule is one file: what lacks a part, or says another id, is refused and the part is named."""

import sys
from itertools import count

import pytest

from verify.errors import VerifyError
from verify.report.rules import RULES, Rules

PARTS = {
    "id": "'sum-of-oaks'",
    "title": "'Oaks are summed'",
    "why": "'What is summed twice is too large.'",
    "repair": "'Sum once.'",
    "example": "Example(wrong='y = f(x)', right='y = x', seen='nowhere')",
}
NUMBER = count()


def written(parts):
    stated = ", ".join(f"{name}={value}" for name, value in parts.items())
    return f"from verify.report.rules import Example, Rule\nRULE = Rule({stated})\n"


@pytest.fixture
def rule_in(tmp_path, monkeypatch):
    """A folder of its own with one rule file, read."""
    package = f"oaks_{next(NUMBER)}"
    folder = tmp_path / package
    folder.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def read(text):
        (folder / "sum_of_oaks.py").write_text(text)
        rules = Rules()
        rules.collect(folder, package=package)
        return rules["sum-of-oaks"]

    return read


def test_a_whole_rule_is_read(rule_in):
    found = rule_in(written(PARTS))
    assert found.help == "What is summed twice is too large. Sum once."
    assert (found.level, found.example.right) == ("error", "y = x")


@pytest.mark.parametrize("part", PARTS)
def test_a_rule_without_one_of_its_parts_is_refused(rule_in, part):
    kept = {name: value for name, value in PARTS.items() if name != part}
    with pytest.raises(VerifyError, match=rf"sum_of_oaks: .*'{part}'.*every part"):
        rule_in(written(kept))


@pytest.mark.parametrize("part", ["title", "why", "repair"])
def test_an_empty_part_is_refused(rule_in, part):
    with pytest.raises(VerifyError, match=rf"{part} of the rule is empty"):
        rule_in(written({**PARTS, part: "''"}))


@pytest.mark.parametrize("part", ["wrong", "right", "seen"])
def test_an_example_without_one_of_its_lines_is_refused(rule_in, part):
    lines = {"wrong": "'y = f(x)'", "right": "'y = x'", "seen": "'nowhere'"}
    del lines[part]
    example = f"Example({', '.join(f'{name}={value}' for name, value in lines.items())})"
    with pytest.raises(VerifyError, match=part):
        rule_in(written({**PARTS, "example": example}))


def test_a_file_is_named_as_its_rule(rule_in):
    with pytest.raises(VerifyError, match=r"'sum-of-elms'; name the file"):
        rule_in(written({**PARTS, "id": "'sum-of-elms'"}))


def test_a_file_without_a_rule_is_refused(rule_in):
    with pytest.raises(VerifyError, match="no RULE"):
        rule_in("LAW = 1\n")


def test_two_folders_cannot_have_one_rule(tmp_path):
    rules = Rules()
    for package in ("oak", "elm"):
        folder = tmp_path / package
        folder.mkdir()
        (folder / "one_rule.py").write_text("")
        if package == "oak":
            rules.collect(folder, package=package)
    with pytest.raises(VerifyError, match=r"elm.one_rule: oak.one_rule is that rule"):
        rules.collect(folder, package="elm")


def test_every_rule_file_of_the_tool_is_whole():
    assert [RULES[one].id for one in RULES] == list(RULES)
    assert len(RULES) == 38
