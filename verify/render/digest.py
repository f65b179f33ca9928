"""A digest in Markdown: short enough for a pull-request comment or a job summary.

The first line is a hidden marker, by which a bot finds its own comment again.
"""

from collections import Counter

from verify.render.github import worst_first
from verify.render.markdown import code, finding_item, text
from verify.report import Report
from verify.rules import rule

MARKER = "<!-- moe-allreduce-verify -->"
MOST = 10
LONGEST = 400  # characters of one message


def render(report: Report) -> str:
    """Title, counts a rule, the ten worst findings; at most about 10,000 characters."""
    blocks = [MARKER, f"### {text(report.title)}", text(report.summary)]
    if not report.findings:
        blocks.append("No findings.")
    else:
        counts = Counter(finding.rule for finding in report.findings)
        table = ["| findings | rule | means |", "| ---: | --- | --- |"]
        table += [
            f"| {count} | {code(name)} | {text(rule(name).title)} |"
            for name, count in counts.most_common()
        ]
        worst = worst_first(report)
        rest = len(worst) - MOST
        items = [finding_item(finding, longest=LONGEST) for finding in worst[:MOST]]
        items += [f"- … and {rest} more"] if rest > 0 else []
        blocks += ["\n".join(table), "\n".join(items)]
    return "\n\n".join(blocks) + "\n"
