"""`# moe-verify: ignore[rule] reason`: a finding that the source itself answers for.

The comment stands on the finding's line, or alone on the line above it. The reason is obligatory.
What ignores nothing, gives no reason or names no rule is a finding of its own.
"""

import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from verify.errors import VerifyError
from verify.report.choices import ALWAYS
from verify.report.report import Finding, Report, TableSection
from verify.report.rules import RULES
from verify.source.source import SourceTree

MARK = "moe-verify:"
COMMENT = re.compile(
    r"#\s*moe-verify:\s*(?P<word>[\w-]*)\s*(?:\[(?P<rules>[^\]]*)\])?(?P<reason>.*)"
)
RULE = "unused-ignore"


@dataclass(frozen=True, kw_only=True)
class Ignore:
    """One comment: `line` is the code's that it is about; `wrong` says what is wrong with it."""

    file: str
    line: int
    rules: tuple[str, ...]
    reason: str
    wrong: str = ""


def read_ignores(tree: SourceTree) -> tuple[Ignore, ...]:
    """Every such comment of the source; of files that cannot be read there are none."""
    found: list[Ignore] = []
    for path in tree.paths:
        try:
            text = tree.read(path)
        except VerifyError:
            continue
        if MARK in text:
            found += _in_text(path, text)
    return tuple(found)


def apply_ignores(report: Report, ignores: Sequence[Ignore]) -> Report:
    """The report without the findings that the source answers for, and with its idle comments."""
    if not ignores:
        return report
    used: set[Ignore] = set()
    kept: list[Finding] = []
    rows: list[tuple[str, ...]] = []
    for finding in report.findings:
        mine = next((one for one in ignores if _answers(one, finding)), None)
        if mine is None:
            kept.append(finding)
        else:
            used.add(mine)
            rows.append((finding.rule, f"{finding.file}:{finding.line}", mine.reason))
    idle = tuple(_idle(one) for one in ignores if one not in used)
    accepted = TableSection(
        title="Ignored in the source", columns=("rule", "where", "reason"), rows=tuple(rows)
    )
    return replace(
        report,
        summary=f"{report.summary}; {len(rows)} ignored in the source",
        sections=(*report.sections, accepted) if rows else report.sections,
        findings=(*kept, *idle),
    )


def _answers(ignore: Ignore, finding: Finding) -> bool:
    return (
        not ignore.wrong
        and (ignore.file, ignore.line) == (finding.file, finding.line)
        and finding.rule in ignore.rules
    )


def _idle(ignore: Ignore) -> Finding:
    what = ignore.wrong or f"no finding of {', '.join(ignore.rules)} is on this line any more"
    fix = "write `# moe-verify: ignore[rule] reason`" if ignore.wrong else "delete the comment"
    return Finding(rule=RULE, message=what, fix=fix, file=ignore.file, line=ignore.line)


def _in_text(path: str, text: str) -> Iterator[Ignore]:
    lines = text.splitlines()
    for number, comment in _comments(text):
        match = COMMENT.search(comment)
        if match is None:
            continue
        alone = lines[number - 1].lstrip().startswith("#")
        rules = tuple(filter(None, (one.strip() for one in (match["rules"] or "").split(","))))
        yield Ignore(
            file=path,
            line=number + 1 if alone else number,
            rules=rules,
            reason=match["reason"].strip(),
            wrong=_wrong(match["word"], rules, match["reason"].strip()),
        )


def _wrong(word: str, rules: Sequence[str], reason: str) -> str:
    unknown = [one for one in rules if one not in RULES]
    if word != "ignore" or not rules:
        return "this comment names no rule to ignore"
    if unknown:
        return f"there is no rule {unknown[0]!r} to ignore"
    if ALWAYS.intersection(rules):
        return f"{rules[0]} cannot be ignored: it says what was not looked at"
    return "" if reason else f"{', '.join(rules)} is ignored without a reason"


def _comments(text: str) -> Iterator[tuple[int, str]]:
    """(line, text) of every comment up to what cannot be tokenised."""
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string
    except (tokenize.TokenError, SyntaxError):
        return
