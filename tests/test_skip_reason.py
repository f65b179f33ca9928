"""One more skip reason, end to end: a line in the helper, a line in the engine's flags.

The packages are copied, the two lines are added to their files, and the commands run from there.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SERVER = ROOT / "tests" / "verify" / "checks" / "replay" / "samples" / "small_server"
REASON = (
    '    SkipReason(flag="NW", name="use_new_step", paths=("EP", "TP"), completed_by="a new step",'
    ' step="new step", over="tp", form="in place", completes=lambda config, layer: False),\n'
)
FLAG = '    Flag(name="NW", says="a new step sums", carries=("use_new_step",)),\n'
NAMES = ["AF", "RS", "DP", "FI", "NW"]
TIMEOUT = 600


def add_line(path: Path, line: str, *, before: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1
    path.write_text(text.replace(before, f"\n{line}{before[1:]}"), encoding="utf-8")


def copied(folder: Path, *, told: bool) -> Path:
    """The packages with the helper's line, and the engine's where it is `told`."""
    for package in ("helper", "oracles", "verify", "gpu_tests"):
        # with what is compiled already: only the changed files are compiled again
        shutil.copytree(ROOT / package, folder / package)
    add_line(folder / "helper" / "reasons.py", REASON, before="\n)\n\n\ndef any_reason(")
    if told:
        flags = folder / "verify" / "engines" / "sglang" / "vocabulary.py"
        add_line(flags, FLAG, before="\n)\nFLAGS = ")
    return folder


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("told"), told=True)


@pytest.fixture
def source(mini_sglang: Path, tmp_path: Path) -> Path:
    """The sample, whose oak takes the new flag and skips on it."""
    shutil.copytree(mini_sglang, tmp_path / "source")
    oak = tmp_path / "source" / "sglang" / "srt" / "models" / "oak.py"
    text = oak.read_text(encoding="utf-8")
    for old, new in (
        ("use_reduce_scatter=False):", "use_reduce_scatter=False, use_new_step=False):"),
        ("or use_reduce_scatter\n", "or use_reduce_scatter\n            or use_new_step\n"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    oak.write_text(text, encoding="utf-8")
    return tmp_path / "source"


def said(packages: Path, *words: str) -> dict[str, Any]:
    """The JSON of a command that runs from these packages."""
    done = subprocess.run(
        [sys.executable, "-m", *words, "--format", "json"],
        cwd=packages,
        env={**os.environ, "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def bits(entries: list[dict[str, Any]]) -> set[int]:
    """How many flags the rows of these entries have."""
    return {len(entry["row"]) for entry in entries if entry["row"]}


def test_report_has_its_column(told: Path) -> None:
    assert said(told, "verify", "report")["flags"] == NAMES


def test_scan_reads_it_in_a_source(told: Path, source: Path) -> None:
    found = said(told, "verify", "scan", str(source))
    assert bits(found["findings"]) == {5}
    skips = {site["cls"]: site["skips_on"] for site in found["sites"]}
    assert skips["OakBlock"] == NAMES
    assert "NW" not in skips["CedarBlock"]


def test_scan_does_not_know_it_without_the_engines_line(tmp_path: Path, source: Path) -> None:
    found = said(copied(tmp_path / "untold", told=False), "verify", "scan", str(source))
    assert bits(found["findings"]) == {4}
    assert all("NW" not in site["skips_on"] for site in found["sites"])


def test_prove_has_its_rows(told: Path) -> None:
    found = said(told, "verify", "prove", "--max-ranks", "2", "--subject", "qwen3_moe")
    assert bits(found["findings"]) == {5}


def test_replay_has_its_rows(told: Path) -> None:
    pytest.importorskip("torch")
    found = said(told, "verify", "replay", str(SERVER), "--world-size", "2")
    assert bits(found["findings"]) == {5}


def test_real_ranks_have_its_rows_and_their_guards_may_name_it(told: Path) -> None:
    pytest.importorskip("torch")
    guard = f"not ({' or '.join(NAMES)})"
    words = ("--world-size", "2", "--model", "qwen3_moe", "--dtype", "float32", "--guard", guard)
    found = said(told, "gpu_tests", "--backend", "gloo", *words)
    assert found["cases"]
    assert bits(found["cases"]) == {5}
