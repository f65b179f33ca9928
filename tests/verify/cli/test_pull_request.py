"""A pull request, from a forge that is a bare repository, as the action and the hook meet it.

The branch takes one reason out of the guard of every model. The runner has what actions/checkout
leaves: the merge of both branches, alone and without a name.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
SCAN = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))["runs"]["steps"][1]
(HOOK,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
MODELS = "python/sglang/srt/models"
REASON = "            or should_use_dp_reduce_scatterv()\n"
REDUCES = "            hidden_states = tensor_model_parallel_all_reduce(hidden_states)"
WOODS = ("alder", "aspen", "beech", "elder", "hazel", "holly", "larch", "maple", "oak", "pine")
WOODS += ("rowan", "yew")
TIME_LIMIT_S = 120


def run(*command, cwd, environment=None, code=0):
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIME_LIMIT_S,
    )
    assert code is None or done.returncode == code, done.stdout + done.stderr
    return done


def git(folder, *words, code=0):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    return run("git", *identity, *words, cwd=folder, code=code).stdout.strip()


@pytest.fixture
def author(tmp_path, mini_sglang, monkeypatch):
    """The author's checkout: `main` is right and has gone on, `change` is wrong in every model."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "author"
    shutil.copytree(mini_sglang, folder / "python")
    models = folder / MODELS
    right = (models / "oak.py").read_text()
    (models / "cedar.py").unlink()
    for wood in WOODS:
        (models / f"{wood}.py").write_text(right.replace("Oak", wood.title()))
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "right")
    git(folder, "checkout", "-q", "-b", "change")
    for wood in WOODS:
        file = models / f"{wood}.py"
        file.write_text(file.read_text().replace(REASON, ""))
    git(folder, "commit", "-qam", "wrong")
    git(folder, "checkout", "-q", "main")
    (folder / "NEWS").write_text("main has gone on\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "news")
    return folder


@pytest.fixture
def forge(author, tmp_path):
    """A bare repository with the pull request's merge where forges keep it."""
    bare = tmp_path / "forge.git"
    git(tmp_path, "init", "-q", "--bare", bare)
    git(author, "checkout", "-q", "--detach", "main")
    git(author, "merge", "-q", "--no-ff", "-m", "merge", "change")
    git(author, "push", "-q", bare, "main", "change", "HEAD:refs/pull/7/merge")
    return bare


class Job:
    """One job on a runner: what a step may see of it, and what its uses of the action leave."""

    def __init__(self, folder, forge, reference):
        self.workspace, self.temp = folder / "workspace", folder / "temp"
        self.summary = folder / "summary"
        scripts = self.temp / "moe-allreduce-verify" / "venv" / "bin"
        for made in (self.workspace, scripts):
            made.mkdir(parents=True)
        self.summary.touch()
        tool = scripts / "moe-allreduce-verify"
        tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m verify "$@"\n')
        tool.chmod(0o755)
        # as actions/checkout does it
        git(self.workspace, "init", "-q")
        git(self.workspace, "remote", "add", "origin", f"file://{forge}")
        self.fetch(reference)
        git(self.workspace, "checkout", "-q", "--detach", "FETCH_HEAD")
        self.uses = 0

    def fetch(self, reference):
        git(self.workspace, "fetch", "-q", "--depth=1", "origin", reference)

    def use(self, *, source=".", code):
        """The action's scan; returns its annotations and its outputs."""
        self.uses += 1
        output = self.temp / f"output-{self.uses}"
        output.touch()
        environment = {
            "EXPECT": "",
            "FAIL_ON": "finding",
            "FOLDER": str(self.temp / "moe-allreduce-verify"),
            "SOURCE": source,
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            # a tool that is not installed here, but lies beside this test
            "PYTHONPATH": str(ROOT),
        }
        bash = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", SCAN["run"])
        done = run(*bash, cwd=self.workspace, environment=environment, code=code)
        outputs = dict(line.split("=", 1) for line in output.read_text().splitlines())
        return done.stdout.splitlines(), outputs


@pytest.fixture
def job(tmp_path, forge):
    return Job(tmp_path / "job", forge, "refs/pull/7/merge")


def places(annotations):
    """The file and line of each error."""
    found = [re.match(r"::error file=([^,]+),line=(\d+),", line) for line in annotations]
    return [(match[1], int(match[2])) for match in found if match]


def hunks(folder, base, head):
    """The lines of each file that the pull request's page shows: changed ones and three around."""
    shown, file = set(), ""
    for line in git(folder, "diff", "-U3", base, head).splitlines():
        if line.startswith("+++ b/"):
            file = line.removeprefix("+++ b/")
        elif match := re.match(r"@@ -\S+ \+(\d+)(?:,(\d+))? @@", line):
            first, count = int(match[1]), int(match[2] or 1)
            shown |= {(file, number) for number in range(first, first + count)}
    return shown


def test_what_it_annotates_is_on_the_page_of_the_pull_request(job, author):
    annotations, _ = job.use(code=1)
    errors = places(annotations)
    assert len(errors) == len(set(errors)) == 10
    assert set(errors) <= hunks(author, "main", "HEAD")
    for file, line in errors:
        assert (job.workspace / file).read_text().splitlines()[line - 1] == REDUCES
    (rest,) = annotations[10:]
    assert rest == "::notice title=moe-allreduce-verify::2 more findings; the job summary has all"


def test_the_job_summary_has_every_place(job):
    annotations, _ = job.use(code=1)
    summary = job.summary.read_text()
    line = places(annotations)[0][1]
    assert all(f"`{wood}.py:{line}`" in summary for wood in WOODS)
    assert f"{len(WOODS)} findings" in summary
    assert "Repair: skip the reduction on DP" in summary


def test_what_it_was_before_passes_in_the_same_job(job):
    """The second use finds nothing of the first, and leaves what the first has said."""
    _, first = job.use(code=1)
    sarif, summary = Path(first["sarif"]).read_bytes(), job.summary.read_text()
    job.fetch("main")
    annotations, second = job.use(source=".@FETCH_HEAD", code=0)
    assert places(annotations) == []
    assert second["directory"] != first["directory"]
    assert Path(first["sarif"]).read_bytes() == sarif
    own = job.summary.read_text().removeprefix(summary)
    assert job.summary.read_text().startswith(summary)
    assert "No findings." in own
    assert not any(wood in own for wood in WOODS)


def test_the_change_alone_is_said_by_one_command(author):
    command = (sys.executable, "-m", "verify", "diff", ".@main", ".@change", "--format", "concise")
    done = run(*command, cwd=author, environment={"PYTHONPATH": str(ROOT)}, code=1)
    assert len(done.stdout.splitlines()) == len(WOODS)
    assert all(": missing-skip: " in line for line in done.stdout.splitlines())
    back = (*command[:4], ".@change", ".@main", *command[6:])
    assert (
        run(*back, cwd=author, environment={"PYTHONPATH": str(ROOT)}, code=0).stdout
        == "no findings\n"
    )


def test_the_hook_does_not_let_it_be_committed(author, monkeypatch, tmp_path):
    monkeypatch.setenv("PRE_COMMIT_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    entry = HOOK["entry"].replace("moe-allreduce-verify", f"{sys.executable} -m verify", 1)
    hook = {**HOOK, "entry": entry, "language": "system"}
    config = {"repos": [{"repo": "local", "hooks": [hook]}]}
    (author / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    git(author, "add", ".")
    git(author, "commit", "-qm", "hook")
    run(sys.executable, "-m", "pre_commit", "install", cwd=author)
    before = git(author, "rev-parse", "HEAD")
    yew = author / MODELS / "yew.py"
    right = yew.read_text()
    yew.write_text(right.replace(REASON, ""))
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    refused = run("git", *identity, "commit", "-am", "wrong", cwd=author, code=1)
    assert "yew.py:23" in refused.stdout + refused.stderr
    assert git(author, "rev-parse", "HEAD") == before
    yew.write_text(
        right.replace("        return hidden_states\n", "        return hidden_states\n\n")
    )
    git(author, "commit", "-qam", "right")
    assert git(author, "rev-parse", "HEAD~1") == before
