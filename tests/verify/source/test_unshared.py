"""Two processes that read one open file do not move each other."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from verify.source.unshared import open_unshared

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def rest_after_a_copy_has_read(path: Path, opened: Callable[[Path], BinaryIO]) -> bytes:
    """What is left to read here when a copy of this process has read the file to its end."""
    with opened(path) as file:
        file.read(1)
        if os.fork() == 0:
            file.read()
            os._exit(0)
        os.wait()
        return file.read()


def plain(path: Path) -> BinaryIO:
    return path.open("rb", buffering=0)


def test_position_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)
    assert len(rest_after_a_copy_has_read(path, open_unshared)) == 99_999


def test_position_of_a_plain_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)
    assert len(rest_after_a_copy_has_read(path, plain)) < 99_999


def test_it_reads_like_any_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with open_unshared(path) as file:
        assert file.read(3) == b"012"
        assert file.seek(-2, os.SEEK_END) == 8
        assert file.read() == b"89"
        assert file.seek(-4, os.SEEK_CUR) == 6
        assert file.read(1) == b"6"
        with pytest.raises(OSError, match="before the start"):
            file.seek(-100, os.SEEK_CUR)
