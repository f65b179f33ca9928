"""Which findings count: `--select`, `--ignore`, `--fail-on`, and `--statistics` of what is left."""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import partial

from verify.errors import VerifyError
from verify.report.report import NOT_ANALYSED, Finding, Report, TableSection
from verify.report.rules import RULES, rule

# worst first; each choice means these and all before it
REACHES = ("default", "option", "conditional")
FAIL_ON = ("finding", *REACHES, "never")
# what was not looked at, and a list that says what is not so: no choice leaves them out
ALWAYS = frozenset({NOT_ANALYSED, "stale-expectation", "unused-ignore"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    for option, what in (("select", "only these rules"), ("ignore", "all rules but these")):
        parser.add_argument(
            f"--{option}",
            action="append",
            type=partial(_rules, option=option),
            default=[],
            metavar="RULE[,...]",
            help=f"{what}, as `rule` lists them; may be repeated",
        )
    parser.add_argument(
        "--fail-on",
        choices=FAIL_ON,
        default="finding",
        metavar="WHICH",
        help="which findings exit with 1. finding: any, unless this is given; default: those that "
        "need nothing but a parallel size; option: also those that need server options; "
        "conditional: also those that need a checkpoint or hardware; never: none",
    )
    parser.add_argument(
        "--statistics", action="store_true", help="how many findings each rule has, and no more"
    )


def selected(report: Report, arguments: argparse.Namespace) -> Report:
    """The report with the findings of the chosen rules."""
    kept = tuple(one for one in report.findings if is_selected(one.rule, arguments))
    left_out = len(report.findings) - len(kept)
    if not left_out:
        return report
    return replace(
        report,
        findings=kept,
        summary=f"{report.summary}; {left_out} of other rules left out by --select and --ignore",
    )


def is_selected(rule_id: str, arguments: argparse.Namespace) -> bool:
    """Whether findings of this rule are asked for."""
    select = {one for chosen in getattr(arguments, "select", ()) for one in chosen}
    ignore = {one for chosen in getattr(arguments, "ignore", ()) for one in chosen}
    wanted = not select or rule_id in select
    return rule_id in ALWAYS or (wanted and rule_id not in ignore)


def fails(findings: Sequence[Finding], fail_on: str) -> bool:
    """Whether the findings make the command fail under this choice.

    A finding that says nothing of its reach (a proof's, a replay's) counts under every choice.
    """
    if fail_on == "never":
        return False
    if fail_on == "finding":
        return bool(findings)
    counted = REACHES[: REACHES.index(fail_on) + 1]
    return any(
        one.rule in ALWAYS or one.as_json().get("reach") in (None, *counted) for one in findings
    )


def statistics(report: Report) -> Report:
    """How many findings each rule has, most first, instead of the findings."""
    counts = Counter(finding.rule for finding in report.findings)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    table = TableSection(
        title="Findings by rule",
        columns=("findings", "rule", "means"),
        rows=tuple((str(count), name, rule(name).title) for name, count in ordered),
    )
    return replace(
        report,
        payload={"statistics": [{"rule": name, "findings": count} for name, count in ordered]},
        sections=(table,) if ordered else (),
        findings=(),
    )


def known_rule(rule_id: str) -> str:
    """The id; raises `VerifyError` with those that are spelt like it where there is no such."""
    if rule_id in RULES:
        return rule_id
    near = sorted((one for one in RULES if rule_id and rule_id in one), key=len)
    near = near or get_close_matches(rule_id, RULES, n=3)
    advice = f"did you mean {' or '.join(near[:3])}?" if near else "`rule` lists them"
    raise VerifyError(f"no rule {rule_id!r}; {advice}")


def rules_in(names: Sequence[str], *, option: str) -> tuple[str, ...]:
    """The ids, checked; raises `VerifyError` for unknown ones and those that always count."""
    known = tuple(known_rule(name.strip()) for name in names)
    always = sorted(ALWAYS.intersection(known)) if option == "ignore" else []
    if always:
        raise VerifyError(f"{always[0]} cannot be ignored: it says what was not looked at")
    return known


def _rules(text: str, *, option: str) -> tuple[str, ...]:
    try:
        return rules_in(text.split(","), option=option)
    except VerifyError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
