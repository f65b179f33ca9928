"""Environments: there whole or not at all, made once, pinned, and said before."""

import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import psutil
import pytest

from verify.checks.serve import environment, sweep
from verify.cli import command_line
from verify.engines.registry import engines
from verify.errors import VerifyError

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """An environment with nothing but pip."""
    folder = tmp_path_factory.mktemp("bare") / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder


@pytest.fixture
def quick(bare, monkeypatch):
    """A bare environment is copied and not made: what is asked is what comes after."""
    say = environment._say

    def copies(command):
        if command[1:3] == ["-m", "venv"]:
            shutil.copytree(bare, command[3], symlinks=True, dirs_exist_ok=True)
        else:
            say(command)

    monkeypatch.setattr(environment, "_say", copies)


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """A folder of wheels instead of an index, and a cache of its own."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "VALUE = 1\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def kept(tmp_path):
    found = (tmp_path / "cache").glob("*/serve/*")
    return sorted(path.name for path in found if not path.name.startswith("."))


def drafts(tmp_path):
    return list((tmp_path / "cache").glob("*/serve/.*"))


def test_it_is_made_once_said_before_and_locked(wheels, quick, tmp_path):
    told = []
    python = environment.ready("e-1", ["tiny==1.0"], size="little", tell=told.append)
    assert len(told) == 1
    assert told[0].endswith("e-1, once: little")
    said = subprocess.check_output([python, "-c", "import tiny; print(tiny.VALUE)"])
    assert said == b"1\n"
    lock = (python.parent.parent / environment.LOCK).read_text()
    assert lock.startswith("tiny==1.0 --hash=sha256:")
    assert environment.ready("e-1", ["tiny==1.0"], size="little", tell=told.append) == python
    assert len(told) == 1
    # a damaged one is made again
    (python.parent.parent / environment.LOCK).unlink()
    environment.ready("e-1", ["tiny==1.0"], size="little", tell=told.append)
    assert len(told) == 2
    assert kept(tmp_path) == ["e-1"]


def test_what_pip_refuses_is_one_line_and_nothing_is_left(wheels, quick, tmp_path):
    with pytest.raises(VerifyError, match=r"tiny==2\.0.*--python PATH") as error:
        environment.ready("e-1", ["tiny==2.0"], size="", tell=lambda line: None)
    assert "\n" not in str(error.value)
    assert not kept(tmp_path)
    assert not drafts(tmp_path)


def engine_s(tmp_path, name):
    """A source of an engine, whatever is in it."""
    folder = tmp_path / name
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").touch()
    return str(folder)


@pytest.mark.parametrize("name", ["sglang", "vllm"])
def test_each_engine_has_one_of_its_own_with_its_packages(tmp_path, monkeypatch, name):
    asked = {}

    def ready(folder, requirements, *, size, tell):
        asked[folder] = (requirements, size)
        raise VerifyError("enough")

    monkeypatch.setattr(sweep, "ready", ready)
    words = ["serve", engine_s(tmp_path, name), "--model", "qwen3_moe", "--layout", "tp2"]
    assert command_line.main(words) == 2
    ((folder, (requirements, size)),) = asked.items()
    assert folder.startswith(f"{name}-")
    recipe = next(each for each in engines() if each.name == name).environment
    assert requirements == recipe.requirements(recipe.newest)
    assert "GB" in size


def test_vllm_s_that_cannot_be_made_is_one_line(wheels, quick, tmp_path, capsys):
    words = ["serve", engine_s(tmp_path, "vllm"), "--model", "aria", "--layout", "tp2"]
    assert command_line.main(words) == 2
    first, *_, last = capsys.readouterr().err.strip().splitlines()
    assert "making" in first
    assert last.startswith("verify: cannot make the environment: ")
    assert not kept(tmp_path)
    assert not drafts(tmp_path)


PROGRAM = """
import sys
from verify.checks.serve import environment
from verify.report.ending import ending_by_signal
def slow(python, *, wanted, report):
    return [sys.executable, "-c", sys.argv[1]]
environment.pip_command = slow
say = environment._say
# nobody asks for its pip
environment._say = lambda command: say(command + ["--without-pip"] * ("venv" in command))
with ending_by_signal():
    environment.ready("e-1", ["tiny==1.0"], size="", tell=lambda line: None)
"""
ALONE = """
import os, time
with open("pids", "a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(600)
"""
TWO = f"import os\nos.fork()\n{ALONE}"


@pytest.mark.parametrize(
    ("number", "pip"),
    [
        pytest.param(signal.SIGTERM, TWO, id="SIGTERM"),
        pytest.param(signal.SIGINT, TWO, id="SIGINT", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, ALONE, id="SIGKILL", marks=pytest.mark.slow),
    ],
)
def test_stopped_while_it_is_made_it_leaves_nothing_half_made(wheels, tmp_path, number, pip):
    pids = tmp_path / "pids"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, pip],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        count = 2 if pip == TWO else 1
        wait_for(lambda: pids.exists() and len(pids.read_text().split()) == count)
        (draft,) = drafts(tmp_path)
        process.send_signal(number)
        process.wait(30)
    assert process.returncode
    assert not kept(tmp_path)
    wait_for(lambda: not any(map(psutil.pid_exists, map(int, pids.read_text().split()))))
    # who is killed outright cannot tidy up; the next one does
    if number == signal.SIGKILL:
        assert drafts(tmp_path) == [draft]
        environment.ready("e-1", ["tiny==1.0"], size="", tell=lambda line: None)
        assert kept(tmp_path) == ["e-1"]
    assert not drafts(tmp_path)


def wait_for(what):
    limit = time.monotonic() + 60
    while not what():
        assert time.monotonic() < limit
        time.sleep(0.02)
