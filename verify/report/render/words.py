"""What renderers share: words for cells, text made harmless, what a place is called."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from verify.report.causes import Cause
from verify.report.report import Cell, Finding, GridLine, RanksSection, Report, TableSection

# a row such as 0010 is a name, not a number
NUMBER = re.compile(r"[-+]?(0|[1-9][\d,]*)(\.\d+)?%?")
MOST_NAMES = 3
OTHERS = "other tokens are in the sums as well"

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


REACH_WORDS: Mapping[str, str] = {
    "default": "needs nothing but a parallel size",
    "option": "needs options of the server",
    "conditional": "needs a checkpoint, platform or GPU that somebody must have",
}
REST = "under other launches or needs"  # places of a cause that take something else
_SETTING = re.compile(r"(\w+) (>|==) (\d+)")


def counted(number: int, noun: str) -> str:
    """`1 finding`, `1,200 findings`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def share(part: int, whole: int) -> str:
    """`22 places`, or of them `1 of 22 places`."""
    return counted(whole, "place") if part == whole else f"{part:,} of {counted(whole, 'place')}"


def reaches(cause: Cause) -> str:
    """Its reach, or each one that its places have with how many they are."""
    some = Counter(one.reach or "unknown" for one in cause.findings)
    several = ", ".join(f"{reach} {number}" for reach, number in some.items())
    return several if len(some) > 1 else cause.reach or ""


def sentence(words: str) -> str:
    """The words as a sentence of their own: a capital letter first, a full stop last."""
    shown = one_line(words)
    if not shown:
        return ""
    first = shown[0].upper() if shown[:1].islower() and _is_word(shown) else shown[0]
    return f"{first}{shown[1:]}{'' if shown[-1] in '.?!:' else '.'}"


def _is_word(text: str) -> bool:
    """Whether the first word is one, and not a name of the source, which keeps its case."""
    return text.split(" ", 1)[0].rstrip(",:;").isalpha()


def setting(name: str) -> str:
    """A setting of a cause in words: `tp_size > 1` is `tp_size above 1`."""
    match = _SETTING.fullmatch(name)
    if match:
        return f"{match[1]} {'above ' if match[2] == '>' else ''}{match[3]}"
    return one_line(name)


def settings(names: Sequence[str]) -> str:
    """All settings that a cause takes."""
    return " and ".join(map(setting, names))


def titled(title: str, takes: Sequence[str]) -> str:
    """What is wrong and, since causes may have one title, with which setting."""
    return f"{title} ({settings(takes)})" if takes else title


def rows_words(rows: Sequence[str], flags: Sequence[str]) -> str:
    """Rows as the flags that are set: `no flag, DP, AF+DP`, the first few of them."""
    names = [
        "+".join(flag for flag, bit in zip(flags, row, strict=True) if bit == "1") or "no flag"
        for row in rows
        if len(row) == len(flags)
    ]
    return few(", ".join(names))


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


def link(report: Report, file: str, line: int | None) -> str:
    """The address of a line at the release's tag; empty where the source is not published."""
    at = f"#L{line}" if line else ""
    return f"{report.web}{quote(file, errors='replace')}{at}" if report.web else ""


def is_mixed(finding: Finding) -> bool:
    """Whether other tokens are in the sums too, which counts of a rank's own tokens do not show."""
    return "mixed" in (finding.kind, finding.rule.rpartition("-")[2])


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
