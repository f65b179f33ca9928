"""Do one thing to many items, in as many processes as there are free cores.

A copy of this process (a fork) knows everything that this one has read and sends back its results.
The items are taken one by one by whoever is free. What a copy does not bring back, because it was
killed, or hangs, or there can be no copy, this process does itself.
"""

import mmap
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from verify.report.progress import track

T = TypeVar("T")
R = TypeVar("R")

MAX_PROCESSES = 4
PATIENCE = 60.0  # seconds: for a copy's last item, when everything else is done


@contextmanager
def side_by_side(
    function: Callable[[T], R], items: Sequence[T], *, what: str
) -> Iterator[Callable[[], list[R]]]:
    """Begin with `function` of every item; what this gives, called, does the rest.

    It returns the results in order. `what` is the items' plural with its verb done. Results must be
    picklable, and the same whatever `function` was asked before.
    """
    numbered = list(enumerate(items))
    # memory that all copies see: a mark for each item that somebody has taken
    board = mmap.mmap(-1, max(1, len(items)))

    def share(offered: Iterable[tuple[int, T]]) -> dict[int, R]:
        done: dict[int, R] = {}
        for at, item in offered:
            # if two look at the same time both do it, which costs time and changes nothing
            if not board[at]:
                board[at] = 1
                done[at] = function(item)
        return done

    def finish() -> list[R]:
        done = first | share(track(numbered, what=what))
        for results in copies:
            with suppress(EOFError):
                done |= results.recv() if results.poll(PATIENCE) else {}
        return [done[at] if at in done else function(item) for at, item in numbered]

    # before there are copies: what it reads, they have
    first = share(numbered[:1])
    processes = max(1, min(_free_cores(), len(items), MAX_PROCESSES))
    # each starts elsewhere: neighbours have much in common that is read once only
    starts = [len(items) * at // processes for at in range(1, processes)]
    with ExitStack() as stack:
        copies = [
            stack.enter_context(_copy(partial(share, (*numbered[start:], *numbered[:start]))))
            for start in starts
        ]
        yield finish


def _free_cores() -> int:
    """How many processes may run at once; 1 where this one must not be copied.

    A copy has one thread only: what another one has locked stays locked in it for ever.
    """
    threads = Path("/proc/self/task")
    if sys.platform != "linux" or not threads.is_dir() or len(list(threads.iterdir())) > 1:
        return 1
    return len(os.sched_getaffinity(0))


@contextmanager
def _copy(work: Callable[[], object]) -> Iterator[Connection]:
    """A copy of this process that does `work` and sends the result; it ends with the block."""
    context = get_context("fork")
    results, sender = context.Pipe(duplex=False)

    def run() -> None:
        # so that to send fails, and does not wait, when this process is gone
        results.close()
        # whatever goes wrong here goes wrong again in the process that is left with it
        with suppress(Exception, KeyboardInterrupt):
            sender.send(work())

    copy = context.Process(target=run, daemon=True)
    # a system that has no room for it raises: it brings nothing back then
    with suppress(OSError):
        copy.start()
    sender.close()
    try:
        yield results
    finally:
        if copy.pid is not None:
            copy.kill()
            copy.join()
        copy.close()
        results.close()
