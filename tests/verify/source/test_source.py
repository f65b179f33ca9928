"""A source from a directory, a wheel, a sdist or a requirement; hostile ones cost a line."""

import io
import os
import random
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import platformdirs
import pytest

from verify.engines.sources import open_source
from verify.errors import VerifyError
from verify.source import fetch, source

MODEL = "sglang/srt/models/sample.py"
UTILS = "sglang/srt/layers/moe/utils.py"


def wheel(path: Path, files: Mapping[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def sdist(path: Path, files: Mapping[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize("inside", ["python/sglang", "sglang", "."])
def test_directory(tmp_path: Path, inside: str) -> None:
    file = tmp_path / inside / "srt/models/sample.py"
    file.parent.mkdir(parents=True)
    file.write_text("x = 1\n")
    (tmp_path / inside / "version.py").write_text('__version__ = "0.5.99"\n')
    with open_source(str(tmp_path)) as tree:
        assert (tree.name, tree.version, tree.paths) == ("sglang", "0.5.99", (MODEL,))
        assert tree.read(MODEL) == "x = 1\n"
        assert tree.generation == "open-coded"


def test_wheel_and_sdist_hold_the_same(tmp_path: Path) -> None:
    from_wheel = open_source(str(wheel(tmp_path / "sglang-0.5.99-py3-none-any.whl", {MODEL: "x"})))
    named = {f"sglang-0.5.99/python/{MODEL}": "x", "sglang-0.5.99/PKG-INFO": ""}
    from_sdist = open_source(str(sdist(tmp_path / "sglang-0.5.99.tar.gz", named)))
    for tree in (from_wheel, from_sdist):
        assert (tree.version, tree.paths, tree.read(MODEL)) == ("0.5.99", (MODEL,), "x")
        tree.close()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({MODEL: ""}, "open-coded"),
        (
            {UTILS: "def should_skip_post_experts_all_reduce(*, use_reduce_scatter):\n    pass"},
            "helper-arguments",
        ),
        (
            {UTILS: "def should_skip_post_experts_all_reduce(*, is_tp_path):\n    pass"},
            "helper-context",
        ),
        ({"sglang/srt/layers/layer_boundary/exit.py": ""}, "layer-boundary"),
        ({"sglang/srt/other.py": ""}, "unknown"),
    ],
)
def test_generation_is_read_from_the_source(
    tmp_path: Path, files: dict[str, str], expected: str
) -> None:
    with open_source(str(wheel(tmp_path / "a.whl", files))) as tree:
        assert tree.generation == expected


def test_paths_that_leave_the_archive_are_not_read(tmp_path: Path) -> None:
    bad = {"/sglang/srt/models/a.py": "", "../sglang/srt/models/b.py": "", MODEL: ""}
    with open_source(str(wheel(tmp_path / "a.whl", bad))) as tree:
        assert tree.paths == (MODEL,)
        assert len(tree.skipped) == 2
    with open_source(str(sdist(tmp_path / "a.tar.gz", bad))) as tree:
        assert tree.paths == (MODEL,)


def test_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MODEL, b" " * (200 << 20))
    assert path.stat().st_size < 1 << 20
    with open_source(str(path)) as tree, pytest.raises(VerifyError, match="larger than 4 MiB"):
        tree.read(MODEL)


def test_damaged_member_is_one_line(tmp_path: Path) -> None:
    path = wheel(tmp_path / "a.whl", {MODEL: "x = 1\n" * 1000})
    raw = bytearray(path.read_bytes())
    raw[60:70] = b"\xff" * 10
    path.write_bytes(raw)
    with open_source(str(path)) as tree, pytest.raises(VerifyError, match="damaged") as caught:
        tree.read(MODEL)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [wheel, sdist])
def test_damaged_archive_is_one_line(
    tmp_path: Path, make: Callable[[Path, Mapping[str, str]], Path]
) -> None:
    names = {"wheel": "a.whl", "sdist": "a.tar.gz"}
    path = make(tmp_path / names[make.__name__], {MODEL: "x = 1\n" * 100, UTILS: ""})
    sound = path.read_bytes()
    draw = random.Random(5)
    refused: list[str] = []
    for _ in range(400):
        raw = bytearray(sound)
        for at in draw.choices(range(len(raw)), k=draw.randint(1, 4)):
            raw[at] = draw.randrange(256)
        path.write_bytes(raw)
        try:
            with open_source(str(path)) as tree:
                tree.read(MODEL)
        except VerifyError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert not any("\n" in line for line in refused)


def test_loop_of_links_ends_and_links_out_are_not_followed(tmp_path: Path) -> None:
    models = tmp_path / "sglang/srt/models"
    models.mkdir(parents=True)
    (models / "sample.py").write_text("")
    (tmp_path / "secret.py").write_text("")
    (models / "again").symlink_to(models, target_is_directory=True)
    (models / "self.py").symlink_to(models / "self.py")
    (models / "out.py").symlink_to(tmp_path / "secret.py")
    os.mkfifo(models / "pipe.py")
    with open_source(str(tmp_path)) as tree:
        assert tree.paths == (MODEL,)
        assert [line.partition(": ")[2] for line in tree.skipped] == [
            "a link that leaves the source, not followed",
            "not a regular file",
            "a link that leads nowhere",
        ]


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_FILES", 2)
    files = {f"sglang/srt/models/m{n}.py": "" for n in range(3)}
    with pytest.raises(VerifyError, match="more than 2 Python files"):
        open_source(str(wheel(tmp_path / "a.whl", files)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no/such/place", "no such file or directory"),
        ("nowhere.whl", "no such file or directory"),
        ("not a requirement!", "is neither a directory, an archive nor a requirement"),
        ("sglang @ https://example.invalid/x.whl", "no URL"),
        ("sglang[all]==0.5.11", "only a name and versions"),
        ("--index-url=x", "is neither"),
        ("sglang==0.5.11; python_version>'3'", "only a name and versions"),
    ],
)
def test_what_is_no_source_is_one_line(text: str, message: str) -> None:
    with pytest.raises(VerifyError, match=message) as caught:
        open_source(text)
    assert "\n" not in str(caught.value)


def test_directory_without_the_package(tmp_path: Path) -> None:
    with pytest.raises(VerifyError, match="no sglang source in"):
        open_source(str(tmp_path))


def test_archive_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(VerifyError, match="not an archive of sglang"):
        open_source(str(wheel(tmp_path / "a.whl", {"other.py": ""})))
    (tmp_path / "noise.whl").write_bytes(b"\0" * 100)
    with pytest.raises(VerifyError, match="neither a directory, a wheel nor a sdist"):
        open_source(str(tmp_path / "noise.whl"))


def test_requirement_is_fetched_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    metadata = "Metadata-Version: 2.1\nName: sglang\nVersion: 0.5.99\n"
    # tagged for another interpreter and platform than this one, as releases are
    name = "sglang-0.5.99-cp311-cp311-manylinux_2_34_x86_64.whl"
    files = {
        MODEL: "",
        "sglang-0.5.99.dist-info/METADATA": metadata,
        "sglang-0.5.99.dist-info/WHEEL": "Wheel-Version: 1.0\n",
        "sglang-0.5.99.dist-info/RECORD": "",
    }
    wheel(shelf / name, files)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda _: tmp_path / "cache")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    with open_source("sglang==0.5.99") as tree:
        assert (tree.version, tree.paths) == ("0.5.99", (MODEL,))
    (shelf / name).unlink()
    with open_source("sglang==0.5.99") as tree:
        assert tree.paths == (MODEL,), "the second time nothing is asked"
    kept = sorted(file.name for file in (tmp_path / "cache/sources").iterdir())
    assert kept == [name, f"{name}.record.json"]
    with pytest.raises(VerifyError, match=r"pip found no wheel for sglang==0\.5\.98"):
        open_source("sglang==0.5.98")


@pytest.mark.parametrize(
    ("no_index", "waited_for"),
    [("1", r"waited 0\.3 s for pip"), ("", r"waited 0\.2 s for the package index")],
)
def test_pip_that_hangs_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_index: str, waited_for: str
) -> None:
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(fetch.sys, "executable", str(slow))
    monkeypatch.setattr(fetch, "TIME_LIMIT_S", 0.3)
    monkeypatch.setattr(fetch, "LISTING_S", 0.2)
    monkeypatch.setenv("PIP_NO_INDEX", no_index)
    monkeypatch.delenv("PIP_TIMEOUT", raising=False)
    monkeypatch.delenv("PIP_DEFAULT_TIMEOUT", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda _: tmp_path / "cache")
    with pytest.raises(VerifyError, match=waited_for):
        open_source("sglang==0.5.99")
