"""Markdown: one table a section, findings as a list."""

from verify.report import Finding, GridSection, RanksSection, Report, TableSection

MARKS = {"skip": "s", "reduce": "R", "expected": "d", "unexpected": "X", "unreachable": "."}
LEGEND = "R reduces, s skips, d differs as expected, X differs unexpectedly, . unreachable"


def render(report: Report) -> str:
    """The report as GitHub-flavoured Markdown."""
    blocks = [f"# {report.title}", report.summary]
    for section in report.sections:
        blocks += [f"## {section.title}", _section(section), *section.notes]
    if report.findings:
        blocks += ["## Findings", "\n".join(_finding(finding) for finding in report.findings)]
    return "\n\n".join(blocks) + "\n"


def _section(section: TableSection | GridSection | RanksSection) -> str:
    match section:
        case TableSection():
            return _table(section.columns, section.rows)
        case GridSection():
            rows = [(line.label, *(MARKS[cell] for cell in line.cells)) for line in section.lines]
            return _table(("site", *section.rows), rows) + f"\n\n{LEGEND}"
        case RanksSection():
            return _table(
                ("rank", "counts of each rank's partial sum"),
                [(str(r), " ".join(map(str, row))) for r, row in enumerate(section.counts)],
            )


def _table(columns: tuple[str, ...], rows: object) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]  # type: ignore[misc]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _finding(finding: Finding) -> str:
    where = f"`{finding.file}:{finding.line}` " if finding.file else ""
    row = f" (row {finding.row})" if finding.row else ""
    fix = f" Fix: {finding.fix}" if finding.fix else ""
    return f"- **{finding.rule}** {where}{finding.message}{row}.{fix}"
