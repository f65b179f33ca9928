"""Plain tables: as wide as the terminal, or as a reader's page when piped.

Text folds between words; a name, a path or a row is never cut, so that it can be copied and found,
and where that needs more room the lines are longer.
"""

import io
import shutil
import sys
from collections.abc import Iterator, Sequence
from math import inf
from textwrap import fill

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from verify.render.words import (
    CELL_MARKS,
    LEGEND,
    numeric_columns,
    one_line,
    place,
    ranks_table,
    shown_by,
)
from verify.report import Finding, GridSection, RanksSection, Report, Section, TableSection

PIPED_WIDTH = 100
BETWEEN = 3  # characters between two columns


def render(report: Report) -> str:
    """The report as text without escape sequences; lines carry no trailing blanks."""
    blocks = [one_line(report.title)]
    for section in report.sections:
        notes = "\n".join(_folded(one_line(note)) for note in section.notes)
        blocks.append("\n".join(filter(None, (section_text(section), notes))))
    if report.findings:
        texts = "\n".join(map(finding_text, report.findings)).splitlines()
        blocks.append("\n".join(("Findings", *(_folded(line, indent=6) for line in texts))))
    return "\n\n".join(blocks) + "\n"


def section_text(section: Section) -> str:
    """One section: its title, then its table."""
    match section:
        case TableSection():
            table = _table(section.columns, section.rows, numeric=numeric_columns(section))
            return f"{one_line(section.title)}\n{table}"
        case GridSection():
            return "\n".join((one_line(section.title), *grid_text(section, width=_width()), LEGEND))
        case RanksSection():
            columns, rows, numeric = ranks_table(section)
            return f"{one_line(section.title)}\n{_table(columns, rows, numeric=numeric)}"


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


def grid_text(section: GridSection, *, width: float = inf) -> Iterator[str]:
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


def _folded(line: str, *, indent: int = 0) -> str:
    return fill(
        line,
        _width(),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: frozenset[int]
) -> str:
    lines = [[one_line(cell) for cell in line] for line in (columns, *rows)]
    widths = _widths(lines, available=_width() - BETWEEN * (len(columns) - 1))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="")
    for index, (title, width) in enumerate(zip(lines[0], widths, strict=True)):
        justify: JustifyMethod = "right" if index in numeric else "left"
        table.add_column(Text(title), overflow="fold", justify=justify, width=width)
    for line in lines[1:]:
        table.add_row(*map(Text, line))
    stream = io.StringIO()
    room = sum(widths) + BETWEEN * len(widths)
    Console(file=stream, width=room, no_color=True, highlight=False).print(table)
    return "\n".join(filter(None, (line.rstrip() for line in stream.getvalue().splitlines())))


def _widths(lines: Sequence[Sequence[str]], *, available: int) -> list[int]:
    """Take from the widest column until all fit, from none below its longest word."""
    columns = list(zip(*lines, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    least = [
        max(cell_len(word) for cell in column for word in cell.split(" ")) for column in columns
    ]
    while sum(widths) > available:
        spare = [index for index in range(len(widths)) if widths[index] > least[index]]
        if not spare:
            break
        widths[max(spare, key=lambda index: widths[index])] -= 1
    return widths
