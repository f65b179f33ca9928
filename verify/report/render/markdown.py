"""Markdown: the whole report for a file or a wiki; one table a section, findings as a list."""

from collections.abc import Iterable, Sequence

from verify.report.causes import Cause, Exposure, causes_of
from verify.report.render.table import grid_text
from verify.report.render.words import (
    LEGEND,
    numeric_columns,
    one_line,
    place,
    ranks_table,
    settings,
    share,
    shown_by,
)
from verify.report.report import Finding, GridSection, RanksSection, Report, Section, TableSection


def render(report: Report) -> str:
    """The report as GitHub-flavoured Markdown."""
    blocks = [f"# {text(report.title)}", text(report.summary)]
    for section in report.sections:
        blocks += [f"## {text(section.title)}", _section(section), *map(text, section.notes)]
    if report.findings:
        blocks.append("## Findings")
        for cause in causes_of(report.findings):
            about = text(settings(cause.takes))
            blocks.append(f"### {text(cause.title)}" + (f" ({about})" if about else ""))
            for exposure in cause.exposures:
                if exposure.reach or exposure.launch or exposure.needs:
                    blocks.append(terms(exposure, cause))
                blocks.append("\n".join(finding_item(finding) for finding in exposure.findings))
    return "\n\n".join(blocks) + "\n"


def terms(exposure: Exposure, cause: Cause, *, longest: int = 10_000) -> str:
    """How many of a cause's places take the same, and that: reach, launch and needs."""
    launch = code(cut(" ".join(exposure.launch), longest))
    parts = (
        share(len(exposure.findings), len(cause.findings)),
        exposure.reach or "",
        f"launch {launch}" if launch else "",
        *(f"needs {text(cut(need, longest))}" for need in exposure.needs),
    )
    return ", ".join(filter(None, parts))


def finding_item(finding: Finding, *, longest: int = 10_000) -> str:
    """A finding as a list item; no part of it is longer than `longest` characters."""
    case, fix = cut(shown_by(finding), longest), cut(finding.fix, longest)
    said = "; ".join(filter(None, (finding.message, finding.sums)))
    where, message = cut(place(finding), longest), cut(said, longest)
    return "".join(
        (
            f"- **{text(finding.rule)}** {code(where)} {text(message)}",
            f"<br>Shown by: {code(case)}" if case else "",
            f"<br>Fix: {text(fix)}" if fix else "",
        )
    )


def cut(words: str, longest: int) -> str:
    """The words, cut after so many characters."""
    return words if len(words) <= longest else f"{words[: longest - 1]}…"


def text(words: str) -> str:
    """Words that stay words: no HTML, no links, no mentions, no cells of their own.

    A `span` between backticks is code, as in every other renderer.
    """
    pieces = one_line(words).split("`")
    if len(pieces) % 2 == 0:  # a backtick without its partner is none
        pieces[-2:] = ["'".join(pieces[-2:])]
    return "".join(
        code(piece) if index % 2 else _escaped(piece) for index, piece in enumerate(pieces)
    )


def code(words: str) -> str:
    """A code span; Markdown has no escapes inside one, so backticks and bars are replaced."""
    shown = one_line(words).replace("`", "'").replace("|", "¦")
    return f"`{shown}`" if shown else ""


def _escaped(words: str) -> str:
    shown = words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for char in "\\*_[]|#~":
        shown = shown.replace(char, f"\\{char}")
    return shown.replace("@", "@&#8203;")


def _section(section: Section) -> str:
    match section:
        case TableSection():
            return _table(section.columns, section.rows, numeric=numeric_columns(section))
        case GridSection():
            # a truth table is a picture: only a fixed pitch keeps its columns together
            return "\n".join(("```text", *grid_text(section), LEGEND, "```"))
        case RanksSection():
            columns, rows, numeric = ranks_table(section)
            return _table(columns, rows, numeric=numeric)


def _table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: frozenset[int]
) -> str:
    rule = ("---:" if index in numeric else "---" for index in range(len(columns)))
    body = (tuple(map(text, row)) for row in rows)
    lines = (tuple(map(text, columns)), tuple(rule), *body)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
