"""Rank processes on this machine: started once, given many items, watched throughout.

The parent holds the rendezvous store on a port the system chose, one pipe and one small board per
rank. A rank that raises, dies, leaves or stops ends the run with one `RankFaultError` that says
which rank, which item, and what it was doing; results that had arrived by then are kept.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, Generic, TypeVar

from gpu_tests.blame import Remains, blame
from gpu_tests.board import Board
from gpu_tests.rank_process import FAILED, Job, Settings, main
from verify.report.ending import ending_by_signal

Item = TypeVar("Item")
Result = TypeVar("Result")

# a rank's peers notice its death a little before the parent learns its exit code
GRACE_SECONDS = 1.0
START_SECONDS = 120.0
# a socket's path has at most 107 characters, of which multiprocessing's own folder and name take 32
LONGEST_TEMPORARY = 107 - 32


class RankFaultError(Exception):
    """What ended the run, in one line: which rank, which item, what it was doing."""


@dataclass(frozen=True, kw_only=True)
class _Member:
    """One rank as the parent sees it."""

    rank: int
    process: Any
    pipe: Connection
    board: Board


class RankPool(Generic[Item, Result]):
    """`work(ranks, item)` on every rank, item after item. Made by `rank_pool`.

    `deadline` is how many seconds one item may take before the ranks count as hanging.
    """

    def __init__(self, members: Sequence[_Member], *, deadline: float) -> None:
        self._members = tuple(members)
        self._deadline = deadline

    def run(
        self, items: Sequence[Item], *, titles: Sequence[str]
    ) -> Iterator[tuple[int, list[Result]]]:
        """Yield (item number, every rank's result) in order, as they are completed.

        Raises `RankFaultError` for what ended the run early, after yielding what was complete by
        then; `titles` name the items in it.
        """
        for member in self._members:
            # a rank that has gone is found when its answer is waited for
            with suppress(OSError):
                member.pipe.send(Job(items=list(items)))
        yield from self.answers(len(items), titles=titles)

    def answers(self, count: int, *, titles: Sequence[str]) -> Iterator[tuple[int, list[Result]]]:
        """The next `count` results of every rank, as `run` yields them."""
        arrived: list[list[Result]] = [[] for _ in self._members]
        fault, done = "", 0
        while done < count:
            happened = self._wait()
            failed = self._take_in(arrived) or not happened
            if failed:
                fault = self._explain(titles, hung=not happened)
                # what was on its way when the fault showed has come by now
                self._take_in(arrived)
            while done < count and all(len(results) > done for results in arrived):
                yield done, [results[done] for results in arrived]
                done += 1
            if fault and done < count:
                raise RankFaultError(fault)

    def _wait(self) -> bool:
        """Whether a message or a death came in time."""
        pipes = [member.pipe for member in self._members]
        sentinels = [member.process.sentinel for member in self._members]
        return bool(wait([*pipes, *sentinels], timeout=self._deadline))

    def _take_in(self, arrived: list[list[Result]]) -> bool:
        """Take in what has come; whether a rank says that it failed, or can say no more."""
        failed = any(not member.process.is_alive() for member in self._members)
        for member, results in zip(self._members, arrived, strict=True):
            with suppress(EOFError, OSError):
                while member.pipe.poll():
                    message = member.pipe.recv()
                    if message == FAILED:
                        failed = True
                    else:
                        results.append(message[0])
        return failed

    def _explain(self, titles: Sequence[str], *, hung: bool) -> str:
        """The fault in one line, once the ranks have had a moment to show it."""
        if not hung:
            time.sleep(GRACE_SECONDS)
        remains = [
            Remains(rank=member.rank, note=member.board.read(), exit_code=member.process.exitcode)
            for member in self._members
        ]
        return blame(remains, titles, hung_seconds=self._deadline if hung else None)


def _context(backend: str) -> SpawnContext | ForkServerContext:
    """Over gloo every rank is a fork of one process that has imported torch and done nothing else.

    A fork must never come after CUDA's start: ranks with GPUs are processes of their own. So are
    they where the temporary folder's path leaves no room for the socket of the one that forks.
    """
    if backend == "nccl" or len(tempfile.gettempdir()) > LONGEST_TEMPORARY:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed"])
    return context


@contextmanager
def rank_pool(
    work: Callable[[Any, Item], Result],
    *,
    world_size: int,
    backend: str = "gloo",
    deadline: float = 30.0,
) -> Iterator[RankPool[Item, Result]]:
    """Start the ranks, hand them over, and leave no process, socket or file behind.

    SIGTERM and SIGHUP end the ranks first.

    `work` must be importable by name in a fresh process. Raises `RankFaultError` when a rank cannot
    start.
    """
    # torch is what takes seconds to import: not before a pool is really wanted
    from torch.distributed import TCPStore  # noqa: PLC0415 - see above

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context = _context(backend)
    members: list[_Member] = []
    with ending_by_signal():
        try:
            for rank in range(world_size):
                ours, theirs = context.Pipe()
                board = Board.make(context)
                settings = Settings(rank=rank, size=world_size, backend=backend, port=store.port)
                process = context.Process(
                    target=main,
                    args=(settings, work, theirs, board),
                    name=f"rank-{rank}",
                    daemon=True,
                )
                process.start()
                theirs.close()
                members.append(_Member(rank=rank, process=process, pipe=ours, board=board))
            _await_start(members)
            yield RankPool(members, deadline=deadline)
        finally:
            _stop(members)


def _await_start(members: Sequence[_Member]) -> None:
    """Every rank's first answer is that it has joined."""
    pool: RankPool[None, None] = RankPool(members, deadline=START_SECONDS)
    for _ in pool.answers(1, titles=()):
        pass


def _stop(members: Sequence[_Member]) -> None:
    """Ask once by closing the pipe, then kill: no rank outlives the pool."""
    for member in members:
        member.pipe.close()
    limit = time.monotonic() + GRACE_SECONDS
    for member in members:
        member.process.join(max(limit - time.monotonic(), 0))
        if member.process.is_alive():
            member.process.kill()
    for member in members:
        member.process.join()
        member.process.close()
