"""Who is to blame when ranks fail, from what each last wrote on its board.

One rank's mistake shows on all of them: peers of a dead rank lose their connection, peers of one
that hangs wait. The one that started it is a rank whose call differs from its peers', else one
that died by itself, else one that failed outside a collective, else the one least far.
"""

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from gpu_tests.board import Note


@dataclass(frozen=True, kw_only=True)
class Remains:
    """One rank after a fault: its last note, and its exit code (None while it runs)."""

    rank: int
    note: Note
    exit_code: int | None


def blame(ranks: Sequence[Remains], titles: Sequence[str], *, hung_seconds: float | None) -> str:
    """One line: which rank, what it did, in which item, while doing what.

    `hung_seconds` is given when nothing happened for that long; `titles` name the items.
    """
    odd = _odd_one_out([rank.note for rank in ranks])
    if odd is not None:
        number, call, others = odd
        where = _where(ranks[number].note, titles)
        return f"rank {number} called {call} where the others called {others}{where}"
    if hung_seconds is not None:
        return _line(_least_far(ranks), f"hangs: no progress for {hung_seconds:g} s", titles)
    dead = [rank for rank in ranks if rank.exit_code is not None and not rank.note.error]
    if dead:
        first = _least_far(dead)
        return _line(first, _ending(first.exit_code or 0), titles)
    raised = [rank for rank in ranks if rank.note.error]
    if not raised:
        return "a rank stopped answering and left no word"
    first = min(raised, key=lambda rank: (rank.note.in_collective, rank.note.progress))
    return _line(first, f"raised {first.note.error}", titles)


def _line(rank: Remains, what: str, titles: Sequence[str]) -> str:
    return f"rank {rank.rank} {what}{_where(rank.note, titles)}, while {rank.note.activity}"


def _where(note: Note, titles: Sequence[str]) -> str:
    return f" in case {titles[note.item]}" if 0 <= note.item < len(titles) else " before any case"


def _ending(exit_code: int) -> str:
    if exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"left early with exit code {exit_code}"


def _least_far(ranks: Sequence[Remains]) -> Remains:
    return min(ranks, key=lambda rank: rank.note.progress)


def _odd_one_out(notes: Sequence[Note]) -> tuple[int, str, str] | None:
    """A rank that made another call than the rest of its group; its number, its call, theirs.

    The others may have got past it: gloo does not compare shapes.
    """
    common = set.intersection(*(set(note.calls) for note in notes))
    for number in sorted(common):
        calls = [note.calls[number] for note in notes]
        # of two ranks that differ neither is in the minority: the higher one is named
        for rank in sorted(range(len(calls)), key=lambda rank: (calls.count(calls[rank]), -rank)):
            peers = [call for call in calls if _group(call) == _group(calls[rank])]
            others = sorted({call for call in peers if call != calls[rank]})
            if others:
                return rank, calls[rank], others[0]
    return None


def _group(call: str) -> str:
    return call.rpartition(" over ")[2]
