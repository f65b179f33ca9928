"""Plain tables for a terminal: as wide as the terminal there, never cut when piped."""

import io
import shutil
import sys
from collections.abc import Iterator
from textwrap import fill

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from verify.render.words import (
    CELL_MARKS,
    LEGEND,
    group_of,
    numeric_columns,
    one_line,
    place,
    shown_by,
)
from verify.report import Finding, GridSection, RanksSection, Report, Section, TableSection

PIPED_WIDTH = 10_000


def render(report: Report) -> str:
    """The report as text without escape sequences; lines carry no trailing blanks."""
    blocks = [one_line(report.title)]
    for section in report.sections:
        notes = "\n".join(fill(one_line(note), _width()) for note in section.notes)
        blocks.append("\n".join(filter(None, (section_text(section), notes))))
    if report.findings:
        texts = "\n".join(map(finding_text, report.findings)).splitlines()
        blocks.append("\n".join(["Findings", *map(_folded, texts)]))
    return "\n\n".join(blocks) + "\n"


def section_text(section: Section) -> str:
    """One section: its title, then its table."""
    match section:
        case TableSection():
            table = _table(section.columns, numeric=numeric_columns(section))
            for row in section.rows:
                table.add_row(*map(_cell, row))
            return _drawn(section.title, table)
        case GridSection():
            return "\n".join((one_line(section.title), *grid_text(section, width=_width()), LEGEND))
        case RanksSection():
            ranks = range(len(section.counts))
            columns = ("rank", *section.groups, *(f"of {rank}" for rank in ranks))
            table = _table(columns, numeric=frozenset({0, *range(len(columns))[-len(ranks) :]}))
            for rank, counts in enumerate(section.counts):
                members = (group_of(rank, groups) for groups in section.groups.values())
                table.add_row(str(rank), *members, *map(str, counts))
            return _drawn(section.title, table)


def finding_text(finding: Finding) -> str:
    """Three lines at most: where and what; the case that shows it; what to change."""
    where = one_line(f"{place(finding)} [{finding.rule}]")
    case = shown_by(finding)
    return "\n".join(
        (
            f"  {where} {one_line(finding.message)}",
            *((f"    shown by: {case}",) if case else ()),
            *((f"    fix: {one_line(finding.fix)}",) if finding.fix else ()),
        )
    )


def grid_text(section: GridSection, *, width: int = PIPED_WIDTH) -> Iterator[str]:
    """Lines: the flags' values down each column, then a line a site, columns in fours.

    Where that is wider than `width` the columns stand close.
    """
    labels = max((len(one_line(line.label)) for line in section.lines), default=0)
    columns = len(section.rows)
    gap, step = ("  ", 4) if labels + 2 + columns + columns // 4 <= width + 1 else (" ", columns)
    for index, flag in enumerate(section.flags):
        yield f"{flag:>{labels}}{gap}{_spaced(''.join(r[index] for r in section.rows), step)}"
    for line in section.lines:
        cells = "".join(CELL_MARKS[cell] for cell in line.cells)
        yield f"{one_line(line.label):<{labels}}{gap}{_spaced(cells, step)}"


def _spaced(cells: str, step: int) -> str:
    return " ".join(cells[start : start + step] for start in range(0, len(cells), step))


def _width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPED_WIDTH


def _folded(line: str) -> str:
    """Folded between words; names and paths stay whole, so that they can be copied."""
    return fill(
        line,
        _width(),
        subsequent_indent=" " * 6,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _table(columns: tuple[str, ...], *, numeric: frozenset[int]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="")
    for index, column in enumerate(columns):
        justify: JustifyMethod = "right" if index in numeric else "left"
        table.add_column(_cell(column), overflow="fold", justify=justify)
    return table


def _cell(text: str) -> Text:
    return Text(one_line(text))


def _drawn(title: str, table: Table) -> str:
    stream = io.StringIO()
    Console(file=stream, width=_width(), no_color=True, highlight=False).print(table)
    lines = (line.rstrip() for line in stream.getvalue().splitlines())
    return "\n".join((one_line(title), *filter(None, lines)))
