"""A finding's counts as a small drawing: ranks side by side, how often each partial is in each."""

from collections.abc import Iterator
from textwrap import wrap

from rich.text import Text

from verify.report.render.page import Page
from verify.report.render.words import OTHERS, is_mixed
from verify.report.report import Finding

TITLE = "in rank"
LACKING = "-"
RIGHT = "1 is right"


def counts_lines(finding: Finding, page: Page, *, indent: str) -> Iterator[Text]:
    """A column a rank, a line a partial sum: `1` is right, `-` lacks it, more is too often.

    Ranks that do not fit the page are counted.
    """
    counts = finding.counts or ()
    ranks = len(counts)
    digits = max(len(str(max((*(count for row in counts for count in row), ranks - 1)))), 1)
    label = f"partial of {ranks - 1}"
    column = digits + 2
    fits = max((page.width - len(indent) - len(label)) // column, 1)
    shown = range(min(ranks, fits))
    head = f"{TITLE:<{len(label)}}" + "".join(f"{rank:>{column}}" for rank in shown)
    yield Text(f"{indent}{head}", "dim")
    for source in shown:
        line = Text(f"{indent}{f'partial of {source}':<{len(label)}}")
        for rank in shown:
            # a rank without tokens counts nothing, and lacks nothing
            count = counts[rank][source] if counts[rank] else 1
            shown_as = (count or LACKING) if counts[rank] else ""
            line.append(f"{shown_as:>{column}}", "" if count == 1 else "bold red")
        yield line
    yield from (
        Text(f"{indent}{line}") for line in wrap(_verdict(finding), page.width - len(indent))
    )
    if len(shown) < ranks:
        yield Text(f"{indent}the first {len(shown)} of {ranks} ranks")


def _verdict(finding: Finding) -> str:
    """What the drawing says, in words: both ways where it is wrong both ways."""
    flat = [count for row in finding.counts or () for count in row]
    lacking, often = flat.count(0), sum(count > 1 for count in flat)
    said = [f"{lacking} of {len(flat)} missing ({LACKING})"] if lacking else []
    said += [f"{often} of {len(flat)} too often"] if often else []
    said += [OTHERS] if is_mixed(finding) else []
    whose = f"; counted for {finding.counts_of}" if finding.counts_of else ""
    return (f"{RIGHT}; {', '.join(said)}" if said else "each once") + whose
