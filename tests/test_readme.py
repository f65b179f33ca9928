"""Every command the README shows is run, and what it prints is what the README shows.

A line `...` in shown output stands for any lines. Of commands that install, what comes after the
installing is run here; `.ci/run` runs them whole and must hold them word for word.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from verify.cli import command_line, configuration
from verify.report import about, choices, ignores

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```console\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
TOML = re.findall(r"^```toml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
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
        run = command
        if "pip install" in command:
            run = command.rpartition(" && ")[2].replace(".venv/bin/", "")
        if "-m pytest" in command:
            continue  # this very run
        marks = []
        if "sglang==" in command:
            marks.append(pytest.mark.network)
        if "gpu_tests" in command or "replay" in command:
            marks += [pytest.mark.ranks]
        yield pytest.param(run, shown, id=run, marks=marks)


def matches(shown, printed):
    """Whether `printed` is `shown` with every `...` line standing for any lines."""
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "..." else re.escape(line) + r"\n"
        for line in shown.rstrip("\n").split("\n")
    )
    lines = "".join(line.rstrip() + "\n" for line in printed.rstrip("\n").split("\n"))
    return re.fullmatch(pattern, lines) is not None


def without_rounding(text):
    """The gpu_tests table without its `worst exact`: a figure of rounding, of this processor."""
    return re.sub(r"(?<=\s)0\.\d\d(?=\s+\d+\s*$)", "0.##", text, flags=re.MULTILINE)


def without_progress(text):
    """Without the line a minute that a busy machine gets to see: `verify: 3/10 ... after 60 s`."""
    return re.sub(r"^\w+: \d+/\d+ .* after \d+ s.*\n", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize(("command", "shown"), list(runnable()))
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
    printed = without_progress(finished.stdout)
    assert matches(without_rounding(shown), without_rounding(printed)), finished.stdout


@pytest.mark.parametrize("code", PYTHON)
def test_python_runs(code):
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("text", TOML)
def test_a_project_s_choices_are_taken(text, tmp_path):
    (tmp_path / "pyproject.toml").write_text(text)
    assert set(configuration.defaults(tmp_path)) == {"expect", "ignore", "fail_on"}


def test_the_ignore_comment_is_one():
    (line,) = [line for line in README.splitlines() if ignores.MARK in line]
    (found,) = ignores._in_text("a.py", line.strip() + "\n")
    assert (found.rules, found.wrong) == (("missing-skip",), "")


def test_every_command_and_choice_is_named():
    for name in (*command_line.COMMANDS, *choices.FAIL_ON):
        assert re.search(rf"(`|### |, |-m verify |diff |--fail-on ){name}\b", README), name


def test_the_picture_is_seen_where_the_package_is_listed():
    """Only an absolute address works there: the picture has one as soon as the repository has."""
    (picture,) = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)
    repository = about.addresses().get("Repository")
    if repository is None:
        assert (ROOT / picture).is_file()
    else:
        assert picture.startswith("https://")
        assert (ROOT / picture.partition("/main/")[2]).is_file()


def test_installing_commands_are_what_ci_runs():
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    installing = [command for command, _ in EXAMPLES if "pip install" in command]
    assert len(installing) == 2
    for command in installing:
        assert command in ci


def test_a_figure_of_rounding_is_not_compared_and_every_other_one_is():
    (line,) = re.findall(r"^   float32 .* 0\.\d\d .*$", README, re.MULTILINE)
    other_processor = re.sub(r"0\.\d\d", "0.31", line)
    assert without_rounding(line) == without_rounding(other_processor)
    for figure in re.finditer(r"(?<= )\d+(?= |$)", line):
        changed = f"{line[: figure.start()]}9{line[figure.end() :]}"
        assert changed == line or not matches(without_rounding(line), without_rounding(changed))


def test_matching_notices_a_changed_line():
    assert matches("a\n...\nc\n", "a\nb\nb\nc\n")
    assert matches("a\n", "a   \n")
    assert not matches("a\n...\nc\n", "a\nb\nd\n")
    assert not matches("a\n", "a\nb\n")


def test_only_lines_of_progress_are_left_out():
    assert without_progress("verify: 3/10 cases after 60 s, 2 min left\nrow 1\n") == "row 1\n"
    assert without_progress("row 1 after 60 s\n") == "row 1 after 60 s\n"
