"""A digest in Markdown: short enough for a pull-request comment or a job summary.

The first line is a hidden marker, by which a bot finds its own comment again. Every finding is in
it: what annotations leave out is found here.
"""

from collections.abc import Iterator
from posixpath import commonpath

from verify.report.causes import Cause, causes_of
from verify.report.render.markdown import code, cut, terms, text
from verify.report.render.words import place, reaches, titled
from verify.report.report import Report

MARKER = "<!-- moe-allreduce-verify -->"
LONGEST = 400  # characters of one message


def render(report: Report) -> str:
    """Title, a table of the causes, then each with its repair and all its places."""
    blocks = [MARKER, f"### {text(report.title)}", text(report.summary)]
    causes = causes_of(report.findings)
    if not causes:
        blocks.append("No findings.")
    else:
        table = ["| cause | reach | places | means |", "| ---: | --- | ---: | --- |"]
        table += [
            f"| {number} | {reaches(cause)} | {len(cause.findings)} | {text(_what(cause))} |"
            for number, cause in enumerate(causes, start=1)
        ]
        blocks.append("\n".join(table))
        blocks += [_cause(cause, number) for number, cause in enumerate(causes, start=1)]
    return "\n\n".join(blocks) + "\n"


def _what(cause: Cause) -> str:
    return cut(titled(cause.title, cause.takes), LONGEST)


def _cause(cause: Cause, number: int) -> str:
    first = cause.shown
    lines = [
        f"**{number}. {text(cause.title)}** {code(cause.rule)}",
        *(() if cause.uniform else (f"Example {code(cut(place(first), LONGEST))}:",)),
        *(text(cut(part, LONGEST)) for part in (first.message, first.sums) if part),
        *((f"Repair: {text(cut(first.fix, LONGEST))}",) if first.fix else ()),
    ]
    return "<br>\n".join((*lines, *_places(cause)))


def _places(cause: Cause) -> Iterator[str]:
    """All places, a line for those that take the same, by their names below a common folder."""
    files = [one for one in cause.findings if one.file]
    folder = commonpath([str(one.file).rpartition("/")[0] for one in files]) if files else ""
    where = f" in {code(folder)}" if folder else ""
    for exposure in cause.exposures:
        names = [place(one).removeprefix(f"{folder}/") for one in exposure.findings]
        shown = ", ".join(code(cut(name, LONGEST)) for name in dict.fromkeys(names) if name)
        yield f"{terms(exposure, cause, longest=LONGEST)}{where}: {shown}"
        where = ""
