"""Progress on standard error for whatever takes longer than a second.

Nothing is written unless standard error is a terminal, and nothing at all under `quiet`. Colours
follow `NO_COLOR`, as everything rich draws does.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

PATIENCE = 1.0  # seconds that pass in silence

_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


@contextmanager
def quiet() -> Iterator[None]:
    """No progress inside the block."""
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)


def track(items: Iterable[T], *, what: str, total: int | None = None) -> Iterator[T]:
    """Yield the items, showing how many are done: `what` is their plural with its verb done.

    `files read`, `deployments proved`. `total` is needed where `items` has no length.
    """
    if _QUIET.get() or not sys.stderr.isatty():
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
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


def _bar() -> "Progress":
    # rich takes longer to import than most commands take: only who sees a bar pays for it
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    return Progress(
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
