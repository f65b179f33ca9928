"""Text for people: what is wrong first, cause by cause, then the report's tables.

As wide as COLUMNS says, as the terminal, or 80 characters. Text folds between words; a table that
does not fit that way has its first column above the others, or is written as records.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from textwrap import fill

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from verify.report.render.cause_text import cause_lines
from verify.report.render.glossary import glossary
from verify.report.render.page import Page, page, written
from verify.report.render.words import (
    CELL_MARKS,
    LEGEND,
    numeric_columns,
    one_line,
    place,
    ranks_table,
    shown_by,
)
from verify.report.report import Finding, GridSection, RanksSection, Report, Section, TableSection

MOST_LINES = 292  # of a text: with its summary, which is folded on a terminal, 300
BETWEEN = 3  # characters between two columns


def render(report: Report, *, on: Page | None = None) -> str:
    """The report as text; escape sequences only on a page with colour."""
    on = on or page()
    blocks = [_folded(one_line(report.title), on)]
    sections = tuple(
        section
        for section in report.sections
        if report.everything or not (isinstance(section, TableSection) and section.more)
    )
    for section in sections:
        notes = "\n".join(_folded(one_line(note), on) for note in section.notes)
        blocks.append("\n".join(filter(None, (section_text(section, on), notes))))
    words = glossary(report, sections=sections)
    if words:
        blocks.append("\n".join(_meanings(words, on)))
    if report.findings:
        # with a blank line between two of them
        others = sum(block.count("\n") + 2 for block in blocks) - 1
        room = inf if report.everything else MOST_LINES - others
        # without a blank line between: six causes and what to type are 24 lines
        blocks[0] += "\n" + written(cause_lines(report, on, room=room), on).rstrip("\n")
    return "\n\n".join(blocks) + "\n"


def _meanings(words: Mapping[str, str], on: Page) -> Iterator[str]:
    """What the tool's words mean, a line each."""
    label = max(map(len, words)) + 2
    yield "Words"
    for word, meaning in words.items():
        yield _folded(meaning, on, before=f"{word:<{label}}", after=" " * label)


def section_text(section: Section, on: Page) -> str:
    """One section: its title, then its table."""
    title = _folded(one_line(section.title), on)
    match section:
        case TableSection():
            numeric = numeric_columns(section)
            return f"{title}\n{_table(section.columns, section.rows, numeric=numeric, on=on)}"
        case GridSection():
            grid = grid_text(section, width=on.width)
            return "\n".join((title, *grid, _folded(LEGEND, on)))
        case RanksSection():
            columns, rows, numeric = ranks_table(section)
            return f"{title}\n{_table(columns, rows, numeric=numeric, on=on)}"


def finding_text(finding: Finding) -> str:
    """Where and what, who sums, the case that shows it, what to change: a line each."""
    where = one_line(f"{place(finding)} [{finding.rule}]")
    case = shown_by(finding)
    return "\n".join(
        (
            f"  {where} {one_line(finding.message)}",
            *((f"    who sums: {one_line(finding.sums)}",) if finding.sums else ()),
            *((f"    shown by: {case}",) if case else ()),
            *((f"    fix: {one_line(finding.fix)}",) if finding.fix else ()),
        )
    )


def grid_text(section: GridSection, *, width: float = inf) -> Iterator[str]:
    """Lines: the flags' values down each column, then a line a site, columns in fours.

    Where that is wider than `width` the columns stand close, then under their sites.
    """
    labels = max((len(one_line(line.label)) for line in section.lines), default=0)
    columns = len(section.rows)
    gap, step = ("  ", 4) if labels + 2 + columns + columns // 4 <= width + 1 else (" ", columns)
    under = labels + 1 + columns > width
    labels = 4 if under else labels
    for index, flag in enumerate(section.flags):
        yield f"{flag:>{labels}}{gap}{_spaced(''.join(r[index] for r in section.rows), step)}"
    for line in section.lines:
        cells = "".join(CELL_MARKS[cell] for cell in line.cells)
        label = one_line(line.label)
        if under:
            yield label
        yield f"{'' if under else label:<{labels}}{gap}{_spaced(cells, step)}"


def _spaced(cells: str, step: int) -> str:
    return " ".join(cells[start : start + step] for start in range(0, len(cells), step))


def _folded(line: str, on: Page, *, before: str = "", after: str = "") -> str:
    return fill(
        line,
        on.width,
        initial_indent=before,
        subsequent_indent=after,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: frozenset[int], on: Page
) -> str:
    lines = [[one_line(cell) for cell in line] for line in (columns, *rows)]
    available = on.width - BETWEEN * (len(columns) - 1)
    widths = _widths(lines, available=available)
    if sum(widths) > available:
        stacked = _stacked(lines, numeric=numeric, on=on)
        return "\n".join(stacked or _records(lines, on))
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


def _stacked(
    lines: Sequence[Sequence[str]], *, numeric: frozenset[int], on: Page
) -> list[str] | None:
    """The first column on lines of its own above the others; None where these do not fit either."""
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)][1:]
    if not widths or sum(widths) + BETWEEN * len(widths) > on.width:
        return None
    rows = [
        " " * BETWEEN
        + (" " * BETWEEN)
        .join(
            f"{cell:>{width}}" if index in numeric else f"{cell:<{width}}"
            for index, (cell, width) in enumerate(zip(line[1:], widths, strict=True), start=1)
        )
        .rstrip()
        for line in lines
    ]
    found = [lines[0][0], rows[0]]
    above = None
    for line, row in zip(lines[1:], rows[1:], strict=True):
        if line[0] != above:
            above = line[0]
            found += fill(above, on.width, break_on_hyphens=False, break_long_words=False).split(
                "\n"
            )
        found.append(row)
    return found


def _records(lines: Sequence[Sequence[str]], on: Page) -> Iterator[str]:
    """A table as records: the first value, then the others a line each under their titles."""
    label = max(map(cell_len, lines[0][1:]), default=0) + 2
    for line in lines[1:]:
        yield fill(
            line[0],
            on.width,
            subsequent_indent="    ",
            break_on_hyphens=False,
            break_long_words=False,
        )
        for title, cell in zip(lines[0][1:], line[1:], strict=True):
            if cell:
                yield fill(
                    cell,
                    on.width,
                    initial_indent=f"  {title:<{label}}",
                    subsequent_indent=" " * (label + 2),
                    break_on_hyphens=False,
                    break_long_words=False,
                )


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
