"""Every command the README shows is run, and what it prints is what the README shows.

A line `...` in shown output stands for any lines. Commands that install are run by `.ci/run`,
which must hold them word for word.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```console\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
TIME_LIMIT_S = 240


def examples(blocks):
    """(command, shown output) for each `$ ` line."""
    for block in blocks:
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            yield command, shown


EXAMPLES = list(examples(BLOCKS))


def runnable():
    for command, shown in EXAMPLES:
        if "pip install" in command:
            continue
        marks = []
        if "sglang==" in command:
            marks.append(pytest.mark.network)
        if "gpu_tests" in command or "replay" in command:
            marks += [pytest.mark.ranks, pytest.mark.xdist_group("ranks")]
        yield pytest.param(command, shown, id=command, marks=marks)


def matches(shown, printed):
    """Whether `printed` is `shown` with every `...` line standing for any lines."""
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "..." else re.escape(line) + r"\n"
        for line in shown.rstrip("\n").split("\n")
    )
    lines = "".join(line.rstrip() + "\n" for line in printed.rstrip("\n").split("\n"))
    return re.fullmatch(pattern, lines) is not None


@pytest.mark.parametrize(("command", "shown"), runnable())
def test_a_command_prints_what_the_readme_shows(command, shown):
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "80",
        "NO_COLOR": "1",
    }
    finished = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )
    assert matches(shown, finished.stdout), finished.stdout


def test_installing_commands_are_what_ci_runs():
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    installing = [command for command, _ in EXAMPLES if "pip install" in command]
    assert len(installing) == 2
    for command in installing:
        assert command in ci


def test_matching_notices_a_changed_line():
    assert matches("a\n...\nc\n", "a\nb\nb\nc\n")
    assert matches("a\n", "a   \n")
    assert not matches("a\n...\nc\n", "a\nb\nd\n")
    assert not matches("a\n", "a\nb\n")
