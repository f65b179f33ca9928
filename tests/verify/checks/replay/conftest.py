"""A server small enough to read, whole and with one thing broken."""

import shutil
from pathlib import Path

import pytest

SMALL_SERVER = Path(__file__).parent / "samples" / "small_server"


@pytest.fixture
def small_server():
    return SMALL_SERVER


@pytest.fixture
def altered(tmp_path):
    """The small server with `old` replaced by `new` in one of its files."""

    def alter(path, old, new):
        root = tmp_path / "source"
        if not root.exists():
            shutil.copytree(SMALL_SERVER, root)
        file = root / "sglang" / "srt" / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
        return root

    return alter
