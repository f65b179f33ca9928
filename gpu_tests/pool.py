"""Rank processes on this machine: started once, given many items, watched throughout.

The parent holds the rendezvous store on a port the system chose, one pipe and one small board per
rank. A rank that raises, dies, leaves or stops ends the run with one `RankFaultError` that says
which rank, which item, and what it was doing; results that had arrived by then are kept.
"""

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from gpu_tests.board import Board, Note
from gpu_tests.rank_process import Job, Settings, main

Item = TypeVar("Item")
Result = TypeVar("Result")

# a rank's peers notice its death a little before the parent learns its exit code
GRACE_SECONDS = 1.0
START_SECONDS = 120.0


class RankFaultError(Exception):
    """What ended the run, in one line: which rank, which item, what it was doing."""


@dataclass(frozen=True, kw_only=True)
class _Member:
    """One rank as the parent sees it."""

    rank: int
    process: Any
    pipe: Connection
    board: Board

    @property
    def note(self) -> Note:
        return self.board.read()


class RankPool(Generic[Item, Result]):
    """`work(ranks, item)` on every rank, item after item. Use as a context manager.

    `deadline` is how many seconds one item may take before the ranks count as hanging.
    """

    def __init__(self, members: Sequence[_Member], *, deadline: float) -> None:
        self._members = tuple(members)
        self._deadline = deadline

    def run(
        self, items: Sequence[Item], *, titles: Sequence[str]
    ) -> Iterator[tuple[int, list[Result]]]:
        """Yield (item number, every rank's result) in order, as they are completed.

        Raises `RankFaultError` for what ended the run early; `titles` name the items in it.
        """
        for member in self._members:
            self._send(member, Job(items=list(items)), titles)
        arrived: list[list[Result]] = [[] for _ in self._members]
        for number in range(len(items)):
            limit = time.monotonic() + self._deadline
            while any(len(results) <= number for results in arrived):
                self._collect(arrived, limit, titles)
            yield number, [results[number] for results in arrived]

    def _send(self, member: _Member, job: Job, titles: Sequence[str]) -> None:
        try:
            member.pipe.send(job)
        except OSError:
            raise RankFaultError(self._blame(titles)) from None

    def _collect(self, arrived: list[list[Result]], limit: float, titles: Sequence[str]) -> None:
        """Take in what has come; raise when something is wrong or time is up."""
        pipes = {member.pipe: member for member in self._members}
        sentinels = [member.process.sentinel for member in self._members]
        left = limit - time.monotonic()
        ready = wait([*pipes, *sentinels], timeout=max(left, 0))
        if not ready:
            raise RankFaultError(self._hanging(titles))
        failed = any(sentinel in ready for sentinel in sentinels)
        for pipe, member in pipes.items():
            while not failed and pipe.poll():
                try:
                    message = pipe.recv()
                except EOFError:
                    failed = True
                    break
                if isinstance(message, str):
                    failed = True
                    break
                arrived[member.rank].append(message[0])
        if failed:
            raise RankFaultError(self._blame(titles))

    def _blame(self, titles: Sequence[str]) -> str:
        """Who started it: a call that disagrees, a death, an error outside a collective."""
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and all(m.process.is_alive() for m in self._members):
            time.sleep(0.02)
        time.sleep(0.1)
        odd = _odd_one_out([member.note for member in self._members])
        if odd is not None:
            rank, others = odd
            note = self._members[rank].note
            return (
                f"rank {rank} called {note.activity} where the others called {others}"
                f"{_where(note, titles)}"
            )
        dead = [m for m in self._members if _died_by_itself(m)]
        if dead:
            first = min(dead, key=lambda m: m.note.progress)
            return (
                f"rank {first.rank} {_ending(first)}"
                f"{_where(first.note, titles)}, {_doing(first.note)}"
            )
        raised = [m for m in self._members if m.note.error]
        # ranks in a collective fail because a peer did
        if not raised:
            return "a rank stopped answering and left no word"
        first = min(raised, key=lambda m: (m.note.in_collective, m.note.progress))
        return (
            f"rank {first.rank} raised {first.note.error}"
            f"{_where(first.note, titles)}, {_doing(first.note)}"
        )

    def _hanging(self, titles: Sequence[str]) -> str:
        notes = [member.note for member in self._members]
        odd = _odd_one_out(notes)
        slowest = min(self._members, key=lambda m: m.note.progress)
        if odd is not None:
            return self._blame(titles)
        return (
            f"rank {slowest.rank} hangs: no progress for {self._deadline:g} s"
            f"{_where(slowest.note, titles)}, {_doing(slowest.note)}"
        )


@contextmanager
def rank_pool(
    work: Callable[[Any, Item], Result],
    *,
    world_size: int,
    backend: str = "gloo",
    deadline: float = 30.0,
) -> Iterator[RankPool[Item, Result]]:
    """Start the ranks, hand them over, and leave no process, socket or file behind.

    `work` must be importable by name in a fresh process. Raises `RankFaultError` when a rank cannot
    start.
    """
    # torch is what takes seconds to import: not before a pool is really wanted
    from torch.distributed import TCPStore  # noqa: PLC0415

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("spawn")
    members: list[_Member] = []
    try:
        for rank in range(world_size):
            ours, theirs = context.Pipe()
            board = Board.make(context)
            settings = Settings(rank=rank, size=world_size, backend=backend, port=store.port)
            process = context.Process(
                target=main, args=(settings, work, theirs, board), name=f"rank-{rank}", daemon=True
            )
            process.start()
            theirs.close()
            members.append(_Member(rank=rank, process=process, pipe=ours, board=board))
        _await_start(members)
        yield RankPool(members, deadline=deadline)
    finally:
        _stop(members)


def _await_start(members: Sequence[_Member]) -> None:
    limit = time.monotonic() + START_SECONDS
    pool: RankPool[None, None] = RankPool(members, deadline=START_SECONDS)
    arrived: list[list[None]] = [[] for _ in members]
    while not all(arrived):
        pool._collect(arrived, limit, ())


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


def _odd_one_out(notes: Sequence[Note]) -> tuple[int, str] | None:
    """A rank that calls another collective, or another shape, than its group's other ranks."""
    calls = [note.activity if note.in_collective else "" for note in notes]
    for rank, call in enumerate(calls):
        peers = [
            other
            for other, note in zip(calls, notes, strict=True)
            if call and other and note.item == notes[rank].item and _group(other) == _group(call)
        ]
        rest = [peer for peer in peers if peer != call]
        if rest and len(set(rest)) == 1 and (len(rest) > 1 or rank > 0):
            return rank, rest[0]
    return None


def _group(call: str) -> str:
    return call.rpartition(" over ")[2]


def _died_by_itself(member: _Member) -> bool:
    return not member.process.is_alive() and not member.note.error


def _ending(member: _Member) -> str:
    code = member.process.exitcode
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"left early with exit code {code}"


def _where(note: Note, titles: Sequence[str]) -> str:
    return f" in case {titles[note.item]}" if 0 <= note.item < len(titles) else " while starting"


def _doing(note: Note) -> str:
    return f"while {note.activity}"
