"""The GitHub action: valid by the schema, its steps run in a shell as a runner runs them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = ACTION["runs"]["steps"]
EXPRESSION = re.compile(r"\$\{\{\s*([\w.-]+)\s*\}\}")
# what GitHub's documentation gives for `shell: bash`
BASH = ("bash", "--noprofile", "--norc", "-eo", "pipefail")
TIME_LIMIT_S = 240


def test_valid_by_the_schema():
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-actions",
    ]
    done = subprocess.run(
        [*command, str(ROOT / "action.yml")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout


def test_no_expression_is_pasted_into_a_script():
    """A branch name or an input must never become a part of the shell's text."""
    for step in STEPS:
        assert step["shell"] == "bash"
        assert not EXPRESSION.search(step["run"])


class Runner:
    """As little of a GitHub runner as the action's steps can tell from one."""

    def __init__(self, folder, workspace):
        self.temp = folder / "temp"
        self.temp.mkdir()
        self.workspace = workspace
        self.summary, self.output = folder / "summary", folder / "output"
        for file in (self.summary, self.output):
            file.touch()

    def values(self, inputs):
        known = {f"inputs.{name}": spec["default"] for name, spec in ACTION["inputs"].items()}
        known |= {f"inputs.{name}": value for name, value in inputs.items()}
        return known | {"github.action_path": str(ROOT), "runner.temp": str(self.temp)}

    def run(self, step, **inputs):
        values = self.values(inputs)
        environment = {
            name: EXPRESSION.sub(lambda match: values[match[1]], text)
            for name, text in step["env"].items()
        }
        files = {"GITHUB_STEP_SUMMARY": str(self.summary), "GITHUB_OUTPUT": str(self.output)}
        return subprocess.run(
            [*BASH, "-c", step["run"]],
            cwd=self.workspace,
            env={**os.environ, **environment, **files},
            capture_output=True,
            text=True,
            check=False,
            timeout=TIME_LIMIT_S,
        )


@pytest.fixture
def runner(tmp_path, mini_sglang):
    workspace = tmp_path / "workspace"
    shutil.copytree(mini_sglang, workspace / "python")
    (workspace / ".git").mkdir()
    return Runner(tmp_path, workspace)


@pytest.fixture
def installed(runner):
    """The environment the first step makes, without an index: this one's, by another name."""
    scripts = runner.temp / "moe-allreduce-verify" / "venv" / "bin"
    scripts.mkdir(parents=True)
    command = f'#!/bin/sh\nexec "{sys.executable}" -m verify "$@"\n'
    (scripts / "moe-allreduce-verify").write_text(command)
    (scripts / "moe-allreduce-verify").chmod(0o755)
    return runner


def outputs_of(runner):
    """The outputs of the last use."""
    return dict(line.split("=", 1) for line in runner.output.read_text().splitlines())


def test_findings_become_annotations_a_summary_and_files(installed):
    done = installed.run(STEPS[1])
    assert done.returncode == 1, done.stderr
    (annotation,) = done.stdout.splitlines()
    assert annotation.startswith("::error file=python/sglang/srt/models/cedar.py,line=22,title=")
    assert "`python/sglang" not in annotation
    assert "`missing-skip`" in installed.summary.read_text()
    outputs = outputs_of(installed)
    names = ("findings.sarif", "report.html", "report.json", "digest.md")
    assert all((Path(outputs["directory"]) / name).stat().st_size for name in names)
    assert Path(outputs["sarif"]).is_file()
    assert set(outputs) == set(ACTION["outputs"])


def test_a_baseline_and_fail_on(installed):
    done = installed.run(STEPS[1], **{"fail-on": "never"})
    assert done.returncode == 0, done.stderr
    shutil.copy(
        Path(outputs_of(installed)["directory"]) / "report.json",
        installed.workspace / "reviewed.json",
    )
    done = installed.run(STEPS[1], expect="reviewed.json")
    assert done.returncode == 0, done.stderr
    assert "1 accepted by reviewed.json" in done.stdout


def test_a_second_use_in_one_job_is_independent_of_the_first(installed):
    assert installed.run(STEPS[1]).returncode == 1
    first = outputs_of(installed)
    sarif = Path(first["sarif"]).read_bytes()
    summary = installed.summary.read_text()
    done = installed.run(STEPS[1], source="/nope")
    assert done.returncode == 2
    assert installed.summary.read_text() == summary, "no digest of the first use again"
    assert Path(first["sarif"]).read_bytes() == sarif
    assert outputs_of(installed)["directory"] != first["directory"]
    assert not Path(outputs_of(installed)["sarif"]).exists()


def test_an_empty_source_is_an_error_and_not_this_folder(installed):
    done = installed.run(STEPS[1], source="")
    assert (done.returncode, "SOURCE is empty" in done.stderr) == (2, True)


def test_hostile_input_is_an_argument_and_not_a_command(installed):
    done = installed.run(STEPS[1], source='$(touch pwned) `touch pwned`; touch pwned; "')
    assert done.returncode == 2
    assert done.stderr.startswith("verify: ")
    assert not (installed.workspace / "pwned").exists()


def test_a_source_that_looks_like_an_option_is_a_source(installed):
    assert installed.run(STEPS[1], source="--output=x").returncode == 2
    assert not (installed.workspace / "x").exists()


@pytest.mark.network
@pytest.mark.slow
def test_installs_for_real_beside_a_folder_called_verify(runner):
    """The environment is the action's own, and the workspace cannot shadow the tool's modules."""
    (runner.workspace / "verify").mkdir()
    (runner.workspace / "verify" / "__init__.py").write_text("raise SystemExit('shadowed')")
    done = runner.run(STEPS[0], python=sys.executable)
    assert done.returncode == 0, done.stderr
    done = runner.run(STEPS[1])
    assert done.returncode == 1, done.stderr
    assert "cedar.py,line=22" in done.stdout
    first = outputs_of(runner)
    # once more in the same job
    assert runner.run(STEPS[0], python=sys.executable).returncode == 0
    assert runner.run(STEPS[1], **{"fail-on": "never"}).returncode == 0
    assert outputs_of(runner)["directory"] != first["directory"]
    assert Path(first["sarif"]).is_file()
