"""How a command ends when it is told to: children first, then folders, then by the signal."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from verify.report.report import Report

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
# empty where no signal can be kept from a child
INTERRUPT = {signal.SIGINT} if hasattr(signal, "pthread_sigmask") else set()
PR_SET_PDEATHSIG = 1


class EndedError(KeyboardInterrupt):
    """A signal other than an interrupt asked this process to end; unwinds as an interrupt does."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class StoppedError(KeyboardInterrupt):
    """Told to end with something done: `report` says what, `cause` how this process was told."""

    def __init__(self, report: Report, cause: KeyboardInterrupt) -> None:
        super().__init__()
        self.report = report
        self.cause = cause


@contextmanager
def ending_by_signal() -> Iterator[None]:
    """SIGTERM and SIGHUP inside the block unwind it, and end this process when it is unwound.

    Whoever started this process sees the signal in its status. A signal that was ignored from the
    start (`nohup`) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = [number for number in SIGNALS if signal.getsignal(number) == signal.SIG_DFL]
    for number in asked:
        signal.signal(number, _end)
    try:
        yield
    except EndedError as ended:
        wanted = ended.number
    else:
        wanted = 0
    finally:
        for number in asked:
            signal.signal(number, signal.SIG_DFL)
    # outside of `except`: only now is nothing left that a traceback keeps from being closed
    if wanted:
        # who is ended by a signal runs no exit functions: a library's folders would stay
        atexit._run_exitfuncs()
        os.kill(os.getpid(), wanted)


@contextmanager
def starting_children() -> Iterator[None]:
    """A signal inside the block is heeded at its end; children never hear a terminal's interrupt.

    A child that is half started when its parent goes complains of what it has not been told, and
    one that is interrupted while it loads, of that: `end_children` is for whoever started it.
    """
    # a mask is handed on to who is started, and what comes meanwhile is not lost
    kept = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPT) if INTERRUPT else set()
    _STARTING.append(0)
    try:
        yield
    finally:
        number = _STARTING.pop()
        if INTERRUPT:
            signal.pthread_sigmask(signal.SIG_SETMASK, kept)
    if number:
        _end(number, None)


def end_children() -> None:
    """A pool waits for what its processes are at; there is nobody left to want it."""
    multiprocessing = sys.modules.get("multiprocessing")
    # its thread complains of tasks that were taken back while their process went
    threading.excepthook = _unheard
    for child in multiprocessing.active_children() if multiprocessing else ():
        child.kill()


def end_with_parent() -> None:
    """From now on this process is killed when the thread that started it is gone (Linux only).

    A process of a pool ends at once where that one is gone already: nobody would tell it.
    """
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 (only children need it)

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    multiprocessing = sys.modules.get("multiprocessing.process")
    parent = multiprocessing.parent_process() if multiprocessing else None
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)


def _unheard(_arguments: threading.ExceptHookArgs) -> None:
    """What a thread says of a process that is being ended."""


_STARTING: list[int] = []
"""For each `starting_children` the signal that has come meanwhile, else 0."""


def _end(number: int, _frame: FrameType | None) -> None:
    if _STARTING:
        _STARTING[-1] = number
        return
    # a second one must not stop the first one's work
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    end_children()
    raise EndedError(number)
