"""What a rank is doing, where its parent can read it even when the rank can no longer say.

Four kilobytes of shared memory without a name: nothing is left behind when a process dies.
"""

import json
import struct
from dataclasses import dataclass, field
from multiprocessing.context import BaseContext
from typing import Any

_LENGTH = struct.Struct("<I")
_SIZE = 4096
# a rank that got through a collective its peers are stuck in is this many calls ahead at most
_REMEMBERED = 4


@dataclass(frozen=True, kw_only=True)
class Note:
    """`item` being worked on (-1 before the first), steps taken in it, and the step under way.

    `calls` are the last collectives by their number since the start.
    """

    item: int
    steps: int
    activity: str
    in_collective: bool
    calls: dict[int, str]
    error: str

    @property
    def progress(self) -> tuple[int, bool, int]:
        """Orders ranks by how far they have come; one that waits for the others comes after."""
        return (self.item, self.in_collective, self.steps)


@dataclass(kw_only=True)
class Board:
    """One rank writes, the parent reads."""

    memory: Any
    item: int = -1
    steps: int = 0
    activity: str = ""
    in_collective: bool = False
    calls: list[tuple[int, str]] = field(default_factory=list)

    @classmethod
    def make(cls, context: BaseContext) -> "Board":
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
        self.activity, self.in_collective = activity, False
        self._write("")

    def call(self, collective: str) -> None:
        """The next step, which waits for other ranks."""
        number = self.calls[-1][0] + 1 if self.calls else 0
        self.calls = [*self.calls[1 - _REMEMBERED :], (number, collective)]
        self.steps += 1
        self.activity, self.in_collective = collective, True
        self._write("")

    def fail(self, error: str) -> None:
        """The step that was announced last went wrong."""
        self._write(error)

    def read(self) -> Note:
        """The note now on the board."""
        raw = self.memory.raw
        (length,) = _LENGTH.unpack_from(raw)
        item, steps, activity, in_collective, calls, error = json.loads(
            raw[_LENGTH.size : _LENGTH.size + length]
        )
        return Note(
            item=item,
            steps=steps,
            activity=activity,
            in_collective=in_collective,
            calls=dict(calls),
            error=error,
        )

    def _write(self, error: str) -> None:
        text = json.dumps(
            [self.item, self.steps, self.activity, self.in_collective, self.calls, error[:1000]]
        ).encode()
        self.memory[: _LENGTH.size + len(text)] = _LENGTH.pack(len(text)) + text
