"""Progress on standard error for whatever takes longer than a second.

On a terminal a bar; elsewhere (a CI log) a line a minute, so that silence means an end. Nothing
under `quiet`. Colours follow `NO_COLOR`, as everything rich draws does.
"""

import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

PATIENCE = 1.0  # seconds that pass in silence
HEARTBEAT = 60.0  # seconds between two lines where there is no terminal

_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


@contextmanager
def quiet() -> Iterator[None]:
    """No progress inside the block."""
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)


def tell(line: str) -> None:
    """Write the line to standard error at once, unless quiet."""
    if not _QUIET.get() and sys.stderr is not None:
        sys.stderr.write(f"verify: {line}\n")
        sys.stderr.flush()


def fitted(line: str) -> str:
    """The line as standard error shows it: broken between words where that is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        return line
    width = shutil.get_terminal_size().columns
    return textwrap.fill(
        line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def track(items: Iterable[T], *, what: str, total: int | None = None) -> Iterator[T]:
    """Yield the items, showing how many are done: `what` is their plural with its verb done.

    `files read`, `deployments proved`. `total` is needed where `items` has no length.
    """
    if _QUIET.get() or sys.stderr is None:
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    if not sys.stderr.isatty():
        yield from _told(items, what=what, total=total)
        return
    bar = _bar()
    task = bar.add_task(what, total=total)
    started = time.monotonic()
    try:
        for done, item in enumerate(items, start=1):
            yield item
            bar.update(task, completed=done)
            if not bar.live.is_started and time.monotonic() - started > PATIENCE:
                bar.start()
    finally:
        if bar.live.is_started:
            bar.stop()


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say that `what` (`fetching name==0.5.11`) is going on, until the block ends."""
    if _QUIET.get() or sys.stderr is None:
        yield
        return
    if not sys.stderr.isatty():
        with _heartbeat(lambda seconds: f"{what}: {seconds:.0f} s so far"):
            yield
        return
    bar = _bar()
    bar.add_task(what, total=None)
    # a download has no loop that could look at the clock
    timer = threading.Timer(PATIENCE, bar.start)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        bar.stop()


def _told(items: Iterable[T], *, what: str, total: int | None) -> Iterator[T]:
    """The items, with a line now and then: how many are done, how long the rest will take."""
    done = 0

    def line(seconds: float) -> str:
        share = f"{done}/{total}" if total else str(done)
        left = f", about {seconds * (total - done) / done:.0f} s left" if total and done else ""
        return f"{share} {what} after {seconds:.0f} s{left}"

    with _heartbeat(line):
        for item in items:
            yield item
            done += 1


@contextmanager
def _heartbeat(line: Callable[[float], str]) -> Iterator[None]:
    """Write `line(seconds since the start)` to standard error every `HEARTBEAT` seconds."""
    started = time.monotonic()
    stream = sys.stderr
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT):
            stream.write(f"verify: {line(time.monotonic() - started)}\n")
            stream.flush()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _bar() -> "Progress":
    # rich takes longer to import than most commands take: only who sees a bar pays for it
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
