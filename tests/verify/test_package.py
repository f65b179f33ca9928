"""What is built and released: the workflow by its schema, the metadata, what the wheel holds."""

import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "release.yml"
PACKAGES = ("helper", "oracles", "verify", "gpu_tests")


def test_the_release_workflow_is_valid_by_the_schema():
    schema = ["--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *schema, str(WORKFLOW)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout


def test_no_expression_is_pasted_into_the_workflow_s_scripts():
    (job,) = yaml.safe_load(WORKFLOW.read_text("utf-8"))["jobs"].values()
    assert not any("${{" in step.get("run", "") for step in job["steps"])


def test_the_changelog_has_what_is_released_and_what_is_not():
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert "## Unreleased" in changes
    assert re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert f"## {version('moe-allreduce-verify')}" in changes


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy without an index; skipped where the backend is not here."""
    pytest.importorskip("hatchling")
    source = tmp_path_factory.mktemp("source") / "tree"
    ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", "*.egg-info", ".*_cache")
    shutil.copytree(ROOT, source, ignore=ignored)
    target = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (file,) = target.glob("*.whl")
    return file


def test_the_wheel_says_what_it_needs_and_runs_on(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        about = Parser().parsestr(archive.read(name).decode())
    classifiers = about.get_all("Classifier")
    assert "Operating System :: POSIX :: Linux" in classifiers
    assert "Programming Language :: Python :: 3.10" in classifiers
    assert about.get_all("Project-URL")
    assert about["Description-Content-Type"] == "text/markdown"
    needed = {re.split(r"[^\w-]", one)[0] for one in about.get_all("Requires-Dist")}
    assert {"jinja2", "packaging", "platformdirs", "rich", "shtab", "tomli"} <= needed


def test_the_wheel_holds_the_packages_and_no_test(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert {name.split("/")[0] for name in names} == set(PACKAGES)
    assert not [name for name in names if re.search(r"(^|/)test_", name)]
    assert "verify/py.typed" in names
