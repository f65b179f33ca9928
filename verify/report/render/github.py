"""GitHub workflow commands: annotations on the lines of a pull request, worst first.

GitHub shows ten errors and ten warnings a step; here it is ten in all, then one line that counts
the rest.
"""

from collections.abc import Mapping

from verify.report.causes import causes_of, level_of
from verify.report.render.words import counted, printable, shown_by
from verify.report.report import Finding, Report
from verify.report.rules import LEVELS, rule

MOST = 10
COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}


def render(report: Report) -> str:
    """One workflow command a line."""
    findings = worst_first(report)
    lines = [_annotation(finding, report.file_prefix) for finding in findings[:MOST]]
    if len(findings) > MOST:
        rest = f"{counted(len(findings) - MOST, 'more finding')}; the job summary has all"
        lines.append(_command("notice", {"title": "moe-allreduce-verify"}, rest))
    if not findings:
        lines.append(_command("notice", {"title": "moe-allreduce-verify"}, report.summary))
    return "\n".join(lines) + "\n"


def worst_first(report: Report) -> list[Finding]:
    """By level; of one level first one of each cause, then the rest, wrong by the most first.

    No milder finding takes a worse one's place, and no cause all those of its level.
    """
    causes = [sorted(cause.findings, key=_order) for cause in causes_of(report.findings)]
    ranked = [(number > 0, finding) for one in causes for number, finding in enumerate(one)]

    def rank(pair: tuple[bool, Finding]) -> tuple[int, bool, int]:
        level, wrongness, *_ = _order(pair[1])
        return level, pair[0], wrongness

    return [finding for _, finding in sorted(ranked, key=rank)]


def _order(finding: Finding) -> tuple[int, int, str, int]:
    level = LEVELS.index(level_of(finding))
    return (level, -_wrongness(finding), finding.file or "", finding.line or 0)


def _wrongness(finding: Finding) -> int:
    """How many partial sums are missing or too many, over all ranks."""
    return sum(abs(count - 1) for counts in finding.counts or () for count in counts)


def _annotation(finding: Finding, prefix: str) -> str:
    law = rule(finding.rule)
    place = {} if finding.file is None else {"file": prefix + finding.file}
    if finding.file is not None and finding.line is not None:
        place["line"] = str(finding.line)
    case = shown_by(finding)
    where = "" if finding.file is not None else finding.subject
    text = "\n".join(
        filter(
            None, (where, finding.message, finding.sums, case and f"Shown by {case}.", finding.fix)
        )
    )
    return _command(COMMANDS[level_of(finding)], {**place, "title": f"{law.id}: {law.title}"}, text)


def _command(name: str, properties: Mapping[str, str], text: str) -> str:
    described = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{name} {described}::{_data(text)}"


def _data(text: str) -> str:
    """As actions/toolkit escapes a command's data: nothing in it ends the line or the command."""
    return printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
