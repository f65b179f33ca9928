"""What text is written on: how wide it is, and whether it shows colours and links."""

import io
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

PIPED_WIDTH = 80
NARROWEST = 40


@dataclass(frozen=True, kw_only=True)
class Page:
    """`width` in characters; `colour` where a terminal shows colours and links."""

    width: int
    colour: bool = False


def page(*, terminal: bool = False) -> Page:
    """The page that text goes to: as wide as COLUMNS says, as the terminal, or 80 characters.

    `terminal` where the text goes to standard output, which may be a terminal.
    """
    shows = terminal and _is_terminal() and os.environ.get("TERM") != "dumb"
    return Page(width=_width(), colour=shows and not os.environ.get("NO_COLOR"))


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _width() -> int:
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told) > 0:
        width = int(told)
    elif _is_terminal():
        width = shutil.get_terminal_size().columns
    else:
        width = PIPED_WIDTH
    return max(width, NARROWEST)


def written(lines: Iterable[Text], on: Page) -> str:
    """The lines as text, one each, without trailing blanks; escapes only where there is colour."""
    if not on.colour:
        return "".join(f"{line.plain.rstrip()}\n" for line in lines)
    stream = io.StringIO()
    console = Console(
        file=stream, width=10_000, force_terminal=True, color_system="standard", highlight=False
    )
    for line in lines:
        line.rstrip()
        console.print(line, soft_wrap=True)
    return stream.getvalue()
