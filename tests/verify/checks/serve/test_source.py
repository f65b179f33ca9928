"""Sources become importable folders: directories, wheels, git revisions; nothing leaves them."""

import subprocess
import zipfile
from dataclasses import replace

import pytest

from verify.checks.serve.environment import locked
from verify.checks.serve.source import locate
from verify.engines.registry import engines
from verify.errors import VerifyError


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    """A commit whose package says 1, a work tree that says 2, and a filter that would shout."""
    folder = tmp_path / "checkout"
    package = folder / "python" / "sglang"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("VALUE = 1\n")
    (folder / ".gitattributes").write_text("*.py filter=loud\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    git(folder, "config", "filter.loud.smudge", f"touch {tmp_path}/ran; cat")
    (package / "__init__.py").write_text("VALUE = 2\n")
    return folder


def test_a_revision_is_read_from_objects_alone(checkout, tmp_path):
    scratch = tmp_path / "scratch"
    holder = located(f"{checkout}@HEAD", scratch)
    assert (holder / "sglang" / "__init__.py").read_text() == "VALUE = 1\n"
    assert not (tmp_path / "ran").exists()


def located(text, scratch):
    found = locate(text, engines=engines(), scratch=scratch)
    assert found.engine.name == "sglang"
    return found.folder


def test_a_directory_is_taken_as_it_is(checkout, tmp_path):
    holder = located(str(checkout), tmp_path / "scratch")
    assert (holder / "sglang" / "__init__.py").read_text() == "VALUE = 2\n"


def test_a_revision_that_git_does_not_know_is_one_line(checkout, tmp_path):
    with pytest.raises(VerifyError, match="no such commit"):
        located(f"{checkout}@nowhere", tmp_path)


def test_an_option_is_no_revision(checkout, tmp_path):
    with pytest.raises(VerifyError, match="no such commit"):
        located(f"{checkout}@--all", tmp_path)


def test_a_wheel_is_unpacked_and_keeps_inside(tmp_path):
    wheel = tmp_path / "sglang-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("sglang/__init__.py", "")
        archive.writestr("other/__init__.py", "")
    holder = located(str(wheel), tmp_path / "scratch")
    assert (holder / "sglang" / "__init__.py").is_file()
    assert not (holder / "other").exists()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("sglang/../../escaped.py", "")
    with pytest.raises(VerifyError, match="leaves the source"):
        located(str(wheel), tmp_path / "scratch")
    assert not (tmp_path / "escaped.py").exists()


def test_a_source_of_no_engine_is_one_line(tmp_path):
    (tmp_path / "python" / "other").mkdir(parents=True)
    (tmp_path / "python" / "other" / "__init__.py").touch()
    with pytest.raises(VerifyError, match="no sglang"):
        located(str(tmp_path), tmp_path / "scratch")


def test_the_engine_is_told_by_the_package_in_the_source(checkout, tmp_path):
    """A second engine in the registry takes nothing from the first."""
    known = next(engine for engine in engines() if engine.package == "sglang")
    second = replace(known, name="second", package="second")
    both = [second, known]
    assert locate(str(checkout), engines=both, scratch=tmp_path / "a").engine is known
    assert locate(f"{checkout}@HEAD", engines=both, scratch=tmp_path / "b").engine is known
    wheel = tmp_path / "second-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("second/__init__.py", "")
    assert locate(str(wheel), engines=both, scratch=tmp_path / "c").engine is second


def test_the_lock_keeps_versions_and_hashes():
    item = {
        "metadata": {"name": "Torch", "version": "2.13.0+cpu"},
        "download_info": {"archive_info": {"hashes": {"sha256": "ab"}}},
    }
    assert locked({"install": [item]}) == ["torch==2.13.0+cpu --hash=sha256:ab"]
