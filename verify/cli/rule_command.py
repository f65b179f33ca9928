"""`rule [ID]`: what a rule means, with an example; without ID, all there are."""

import argparse

from verify.report.choices import known_rule
from verify.report.report import Json, Report, TableSection
from verify.report.rules import RULES, Rule


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """ID, which may be left out."""
    parser.add_argument("rule", metavar="ID", nargs="?", help="a rule's id; all without it")


def run(arguments: argparse.Namespace) -> Report:
    """Explain; `--all` every rule. Raises `VerifyError` for a rule there is not."""
    if arguments.rule is None:
        return _all()
    return _one(RULES[known_rule(arguments.rule)])


def _all() -> Report:
    laws = TableSection(
        title="What is looked for",
        columns=("rule", "level", "means"),
        rows=tuple((law.id, law.level, law.title) for law in RULES.values()),
    )
    return Report(
        command="rule",
        title="Rules",
        summary=f"{len(RULES)} rules; `rule ID` explains one",
        payload={"rules": [_json(law) for law in RULES.values()]},
        sections=(laws, *(_section(law, title=law.id, more=True) for law in RULES.values())),
        findings=(),
    )


def _one(law: Rule) -> Report:
    return Report(
        command="rule",
        title=law.id,
        summary=f"--select {law.id} shows these only, --ignore {law.id} all but these",
        payload={"rules": [_json(law)]},
        sections=(_section(law, title=law.title),),
        findings=(),
    )


def _section(law: Rule, *, title: str, more: bool = False) -> TableSection:
    example = law.example
    lines = [] if title == law.title else [("means", law.title)]
    lines += [("level", law.level), ("what, why", law.help)]
    if example is not None:
        lines += [("wrong", example.wrong), ("right", example.right), ("seen in", example.seen)]
    return TableSection(title=title, columns=("", ""), rows=tuple(lines), more=more)


def _json(law: Rule) -> dict[str, Json]:
    example = law.example
    return {
        "id": law.id,
        "title": law.title,
        "level": law.level,
        "help": law.help,
        "wrong": example.wrong if example else None,
        "right": example.right if example else None,
        "seen": example.seen if example else None,
    }
