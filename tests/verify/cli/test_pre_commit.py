"""The pre-commit hook, in a repository of its own, by the real pre-commit."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
(HOOK,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
PRE_COMMIT = (sys.executable, "-m", "pre_commit")
TIME_LIMIT_S = 240


@pytest.fixture
def repository(tmp_path, mini_sglang, monkeypatch):
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PRE_COMMIT_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "repository"
    shutil.copytree(mini_sglang, folder / "python")
    run("git", "init", "--quiet", cwd=folder)
    run("git", "add", ".", cwd=folder)
    return folder


def run(*command, cwd):
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=TIME_LIMIT_S
    )


def configure(folder, **changes):
    """The hook as it is offered, with this environment's tool in place of an installed one."""
    entry = HOOK["entry"].replace("moe-allreduce-verify", f"{sys.executable} -m verify", 1)
    hook = {**HOOK, "entry": entry, "language": "system", **changes}
    config = {"repos": [{"repo": "local", "hooks": [hook]}]}
    (folder / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    run("git", "add", ".", cwd=folder)


def test_the_manifest_and_this_repository_s_own_configuration_are_valid():
    for kind, file in (
        ("manifest", ".pre-commit-hooks.yaml"),
        ("config", ".pre-commit-config.yaml"),
    ):
        done = run(*PRE_COMMIT, f"validate-{kind}", file, cwd=ROOT)
        assert done.returncode == 0, done.stdout


def test_a_finding_stops_the_commit(repository):
    configure(repository)
    done = run(*PRE_COMMIT, "run", cwd=repository)
    assert done.returncode == 1
    assert "MoE partial sums are added up exactly once" in done.stdout
    assert "Failed" in done.stdout
    assert "missing-skip" in done.stdout
    assert "cedar.py:22" in done.stdout


def test_a_baseline_lets_it_pass(repository):
    done = run(sys.executable, "-m", "verify", "scan", ".", "--format=json", cwd=repository)
    (repository / "reviewed.json").write_text(done.stdout, encoding="utf-8")
    configure(repository, args=[".", "--expect", "reviewed.json"])
    done = run(*PRE_COMMIT, "run", cwd=repository)
    assert done.returncode == 0, done.stdout
    assert "Passed" in done.stdout


def test_files_that_are_no_source_do_not_start_it(repository):
    configure(repository)
    (repository / "notes.py").write_text("", encoding="utf-8")
    done = run(*PRE_COMMIT, "run", "--files", "notes.py", cwd=repository)
    assert done.returncode == 0
    assert "(no files to check)Skipped" in done.stdout


@pytest.mark.network
@pytest.mark.slow
def test_from_this_repository_as_others_install_it(repository):
    """`language: python`: pre-commit builds the package into an environment of its own."""
    done = run(*PRE_COMMIT, "try-repo", str(ROOT), HOOK["id"], "--all-files", cwd=repository)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "missing-skip" in done.stdout
    assert "cedar.py:22" in done.stdout
