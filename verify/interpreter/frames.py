"""The calls in progress: the innermost is the one that runs."""

from typing import Generic, TypeVar

F = TypeVar("F")


class Frames(Generic[F]):
    """A stack of frames; `frame` is the innermost one."""

    frames: list[F]
    frame: F

    def enter(self, frame: F) -> None:
        """Begin a call: it is the innermost one until it is left."""
        self.frames.append(frame)
        self.frame = frame

    def leave(self) -> None:
        """End the innermost call."""
        self.frames.pop()
        if self.frames:
            self.frame = self.frames[-1]
