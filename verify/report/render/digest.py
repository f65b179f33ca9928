"""A digest in Markdown: short enough for a pull-request comment or a job summary.

The first line is a hidden marker, by which a bot finds its own comment again. Every finding is in
it: what annotations leave out is found here.
"""

from posixpath import commonpath

from verify.report.causes import Cause, causes_of
from verify.report.render.markdown import code, cut, text
from verify.report.render.words import counted, place, titled
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
            f"| {number} | {cause.reach or ''} | {len(cause.findings)} | {text(_what(cause))} |"
            for number, cause in enumerate(causes, start=1)
        ]
        blocks.append("\n".join(table))
        blocks += [_cause(cause, number) for number, cause in enumerate(causes, start=1)]
    return "\n\n".join(blocks) + "\n"


def _what(cause: Cause) -> str:
    return cut(titled(cause.title, cause.takes), LONGEST)


def _cause(cause: Cause, number: int) -> str:
    first = cause.shown
    launch = code(cut(" ".join(cause.launch), LONGEST))
    lines = [
        f"**{number}. {text(cause.title)}** {code(cause.rule)}",
        *(text(cut(part, LONGEST)) for part in (first.message, first.sums) if part),
        *((f"Repair: {text(cut(first.fix, LONGEST))}",) if first.fix else ()),
        *((f"Launch: {launch}",) if launch else ()),
    ]
    return "<br>\n".join((*lines, _places(cause)))


def _places(cause: Cause) -> str:
    """All places, by their names below the folder that all are in."""
    files = [one for one in cause.findings if one.file]
    folder = commonpath([str(one.file).rpartition("/")[0] for one in files]) if files else ""
    names = [place(one).removeprefix(f"{folder}/") for one in cause.findings]
    shown = ", ".join(code(cut(name, LONGEST)) for name in dict.fromkeys(names) if name)
    where = f" in {code(folder)}" if folder else ""
    return f"{counted(len(cause.findings), 'place')}{where}: {shown}"
