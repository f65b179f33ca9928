"""The source around a finding's places as text: three lines each, the line itself marked."""

from collections.abc import Iterator, Mapping

from rich.syntax import Syntax
from rich.text import Text

from verify.report.render.page import Page
from verify.report.render.words import link, printable
from verify.report.report import LEAVES, Finding, Report

MARK = ">"
MOST_PLACES = 3  # where the sum is made, where it is handed over, where it is summed again


def code_lines(report: Report, finding: Finding, page: Page, *, indent: str) -> Iterator[Text]:
    """Each place's `file:line`, what happens there, and the lines around it."""
    for file, line, what in shown_places(finding):
        head = Text(indent)
        head.append(f"{printable(file)}:{line}", _style(report, file, line))
        head.append(f"  {printable(what)}", "dim")
        head.truncate(page.width, overflow="ellipsis")
        lines = report.code.get(file, {})
        numbers = [n for n in range(line - 1, line + 2) if n == line or lines.get(n, "").strip()]
        if line not in lines:
            continue
        yield head
        yield from _numbered(lines, numbers, line, page, indent)


def shown_places(finding: Finding) -> Iterator[tuple[str, int, str]]:
    """The places worth seeing: the finding's own and those that hand over or sum again."""
    if finding.file is None or not finding.line:
        return
    built = any(one.what == LEAVES for one in finding.related)
    yield finding.file, finding.line, "here it is built" if built else "here"
    others = [one for one in finding.related if one.what.startswith(("hands", "sums"))]
    for one in others[: MOST_PLACES - 1]:
        yield one.file, one.line, one.what


def _style(report: Report, file: str, line: int) -> str:
    return f"underline link {link(report, file, line)}" if report.web else "underline"


def _numbered(
    lines: Mapping[int, str], numbers: list[int], marked: int, page: Page, indent: str
) -> Iterator[Text]:
    texts = [
        printable(lines[number].expandtabs().rstrip()).replace("\n", " ") for number in numbers
    ]
    margin = min((len(t) - len(t.lstrip()) for t in texts if t.strip()), default=0)
    code = "\n".join(text[margin:] for text in texts)
    if page.colour:
        coloured = Syntax("", "python", theme="ansi_dark").highlight(code)
        coloured.rstrip()
        drawn = list(coloured.split("\n", allow_blank=True))
    else:
        drawn = [Text(text) for text in code.split("\n")]
    for number, text in zip(numbers, drawn, strict=False):
        here = number == marked
        line = Text(f"{indent}{MARK if here else ' '} {number:>5}  ", "bold" if here else "dim")
        line.append_text(text)
        line.truncate(page.width, overflow="ellipsis")
        yield line
