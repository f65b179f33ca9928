"""A file that copies of this process can read at the same time.

What a fork shares of an open file is also its position: whoever reads moves all the others.
"""

import io
import os
from errno import EINVAL
from pathlib import Path
from typing import BinaryIO, cast


class _Unshared(io.RawIOBase):
    """A file whose position is this object's, not the system's."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("rb", buffering=0)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        size = os.fstat(self._file.fileno()).st_size
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: size}[whence]
        if start + offset < 0:
            raise OSError(EINVAL, "a position before the start")
        self._at = start + offset
        return self._at

    # the buffer's type differs from one version of the type stubs to the next
    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = os.pread(self._file.fileno(), len(buffer), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def open_unshared(path: Path) -> BinaryIO:
    """Open a file to read it; raises `OSError`."""
    if not hasattr(os, "pread"):
        # a system that has no fork either
        return path.open("rb")
    return cast("BinaryIO", io.BufferedReader(_Unshared(path)))
