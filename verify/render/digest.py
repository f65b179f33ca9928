"""A digest in Markdown: short enough for a pull-request comment or a job summary.

The first line is a hidden marker, by which a bot finds its own comment again.
"""

from collections import Counter

from verify.render.github import worst_first
from verify.render.words import one_line, place, shown_by
from verify.report import Finding, Report
from verify.rules import rule

MARKER = "<!-- moe-allreduce-verify -->"
MOST = 10
LONGEST = 400  # characters of one message


def render(report: Report) -> str:
    """Title, counts a rule, the ten worst findings; at most about 10,000 characters."""
    blocks = [MARKER, f"### {_text(report.title)}", _text(report.summary)]
    if not report.findings:
        blocks.append("No findings.")
    else:
        counts = Counter(finding.rule for finding in report.findings)
        table = ["| findings | rule | means |", "| ---: | --- | --- |"]
        table += [
            f"| {count} | {_code(name)} | {_text(rule(name).title)} |"
            for name, count in counts.most_common()
        ]
        worst = worst_first(report)
        rest = len(worst) - MOST
        items = [_item(finding) for finding in worst[:MOST]]
        items += [f"- … and {rest} more"] if rest > 0 else []
        blocks += ["\n".join(table), "\n".join(items)]
    return "\n\n".join(blocks) + "\n"


def _item(finding: Finding) -> str:
    case = shown_by(finding)
    return "".join(
        (
            f"- **{_text(finding.rule)}** {_code(place(finding))} {_text(finding.message)}",
            f"<br>Shown by: {_code(case)}" if case else "",
            f"<br>Fix: {_text(finding.fix)}" if finding.fix else "",
        )
    )


def _text(text: str) -> str:
    """Text that stays text: no HTML, no links, no mentions, no table cells of its own."""
    shown = one_line(text)
    shown = shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"
    for char in "\\`*_[]<>|#!~":
        shown = shown.replace(char, f"\\{char}")
    return shown.replace("&", "&amp;").replace("@", "@<!-- -->")


def _code(text: str) -> str:
    """A code span; Markdown has no escape inside one, so backticks and bars are replaced."""
    shown = one_line(text)[:LONGEST].replace("`", "'").replace("|", "¦")
    return f"`{shown}`" if shown.strip() else ""
