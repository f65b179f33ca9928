"""One line a finding, `file:line: rule: message`, for editors and for grep."""

from verify.report.causes import causes_of
from verify.report.render.words import one_line, place
from verify.report.report import Finding, Report


def render(report: Report) -> str:
    """The findings by cause, a line each."""
    causes = causes_of(report.findings)
    lines = [_line(finding) for cause in causes for finding in cause.findings]
    return "\n".join(lines or ["no findings"]) + "\n"


def _line(finding: Finding) -> str:
    where = one_line(place(finding)) or "-"
    said = "; ".join(filter(None, map(one_line, (finding.message, finding.sums))))
    return f"{where}: {one_line(finding.rule)}: {said}"
