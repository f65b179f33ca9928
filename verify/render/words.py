"""What renderers share: words for cells, text made harmless, what a place is called."""

import re

from verify.report import Cell, Finding, GridLine, RanksSection, TableSection

# a row such as 0010 is a name, not a number
NUMBER = re.compile(r"[-+]?(0|[1-9][\d,]*)(\.\d+)?%?")
MOST_NAMES = 3

CELL_MARKS: dict[Cell, str] = {
    "skip": "s",
    "reduce": "R",
    "expected": "d",
    "unexpected": "X",
    "unreachable": ".",
}
CELL_WORDS: dict[Cell, str] = {
    "skip": "skips",
    "reduce": "reduces",
    "expected": "differs as expected",
    "unexpected": "differs unexpectedly",
    "unreachable": "unreachable",
}
LEGEND = ", ".join(f"{mark} {CELL_WORDS[cell]}" for cell, mark in CELL_MARKS.items())


def printable(text: str) -> str:
    """`text` with control characters escaped: a scanned file must not drive a terminal.

    Line feeds stay. C0, C1, line separators and bidirectional overrides are shown as escapes.
    """
    return "".join(
        char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text
    )


def one_line(text: str) -> str:
    """`printable` text with every run of white space as one blank."""
    return printable(" ".join(text.split()))


def place(finding: Finding) -> str:
    """Where a finding is: `file:line`, else its subjects, the first few of them; else nothing."""
    if finding.file is None:
        return few(finding.subject)
    return finding.file if finding.line is None else f"{finding.file}:{finding.line}"


def few(names: str) -> str:
    """A list of names, cut after the third: `a, b, c and 9 more`."""
    parts = names.split(", ")
    rest = len(parts) - MOST_NAMES
    return names if rest < 2 else f"{', '.join(parts[:MOST_NAMES])} and {rest} more"


def spoken(line: GridLine, rows: tuple[str, ...]) -> str:
    """A grid line in words: which rows are in which state, `reduces in 0000; skips in 0001`."""
    cells = tuple(zip(rows, line.cells, strict=True))
    return "; ".join(
        f"{word} in {' '.join(row for row, cell in cells if cell == state)}"
        for state, word in CELL_WORDS.items()
        if state in line.cells
    )


def shown_by(finding: Finding) -> str:
    """The smallest case that shows a finding, `row 0010 tp=4 ep=4`; empty where it has none."""
    row = f"row {finding.row}" if finding.row else ""
    return one_line(" ".join(filter(None, (row, deployment_words(finding)))))


def deployment_words(finding: Finding) -> str:
    """`tp=4 ep=2`: the deployment that shows a finding, in the order it was given."""
    return " ".join(f"{name}={value}" for name, value in (finding.deployment or {}).items())


def group_of(rank: int, groups: tuple[tuple[int, ...], ...]) -> str:
    """The group `rank` is in, by its members: `0,2`; a dash where it is in none."""
    mine = next((group for group in groups if rank in group), ())
    return ",".join(map(str, mine)) or "-"


def numeric_columns(section: TableSection) -> frozenset[int]:
    """The columns that hold nothing but numbers: these are set to the right."""
    return frozenset(
        index
        for index in range(len(section.columns))
        if section.rows and all(NUMBER.fullmatch(row[index]) for row in section.rows)
    )


def ranks_table(
    section: RanksSection,
) -> tuple[tuple[str, ...], list[tuple[str, ...]], frozenset[int]]:
    """A deployment as a table: columns, a row a rank, and which columns hold numbers."""
    ranks = range(len(section.counts))
    columns = ("rank", *section.groups, *(f"of {rank}" for rank in ranks))
    rows = [
        (
            str(rank),
            *(group_of(rank, groups) for groups in section.groups.values()),
            *map(str, counts),
        )
        for rank, counts in enumerate(section.counts)
    ]
    return columns, rows, frozenset({0, *range(len(columns))[-len(ranks) :]})
