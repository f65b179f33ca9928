"""What a rank is doing, where its parent can read it even when the rank can no longer say.

A few hundred bytes of shared memory without a name: nothing is left behind when a process dies.
"""

import struct
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from typing import Any

_HEADER = struct.Struct("<iiBHH")
_SIZE = 1024


@dataclass(frozen=True, kw_only=True)
class Note:
    """`item` being worked on (-1 before the first), steps taken in it, and the step under way."""

    item: int
    steps: int
    in_collective: bool
    activity: str
    error: str

    @property
    def progress(self) -> tuple[int, int]:
        """Orders ranks by how far they have come."""
        return (self.item, self.steps)


@dataclass(kw_only=True)
class Board:
    """One rank writes, the parent reads."""

    memory: Any
    item: int = -1
    steps: int = 0
    activity: str = "starting"

    @classmethod
    def make(cls, context: SpawnContext) -> "Board":
        """An empty board that can be handed to a process of `context`."""
        board = cls(memory=context.RawArray("c", _SIZE))
        board.say("starting")
        return board

    def begin(self, item: int) -> None:
        """The next item."""
        self.item, self.steps = item, 0
        self.say("beginning")

    def say(self, activity: str) -> None:
        """The next step."""
        self.steps += 1
        self.activity = activity
        self._write("")

    def fail(self, error: str) -> None:
        """The step that was announced last went wrong."""
        self._write(error)

    def read(self) -> Note:
        """The note now on the board."""
        raw = self.memory.raw
        item, steps, in_collective, length, error_length = _HEADER.unpack_from(raw)
        text = raw[_HEADER.size : _HEADER.size + length + error_length]
        return Note(
            item=item,
            steps=steps,
            in_collective=bool(in_collective),
            activity=text[:length].decode(errors="replace"),
            error=text[length:].decode(errors="replace"),
        )

    def _write(self, error: str) -> None:
        activity = self.activity.encode()[:200]
        problem = error.encode()[:700]
        header = _HEADER.pack(
            self.item, self.steps, " over ranks " in self.activity, len(activity), len(problem)
        )
        self.memory.raw = (header + activity + problem).ljust(_SIZE, b"\0")
