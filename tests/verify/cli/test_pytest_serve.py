"""Launches as test items, with a toy engine: what passes, fails, is skipped."""

import runpy
import sys
from pathlib import Path

import psutil
import pytest

from verify.checks.serve import sweep
from verify.cli import pytest_items
from verify.report.report import Report

pytest_plugins = ["pytester"]

SAMPLES = Path(__file__).parents[1] / "checks" / "serve" / "samples"
NOTHING = Report(
    command="scan", title="", summary="", payload={"sites": ()}, sections=(), findings=()
)


@pytest.fixture
def run(pytester, monkeypatch):
    toy = runpy.run_path(str(SAMPLES / "toyrun.py"))["toy"]()
    monkeypatch.setattr(sweep, "engines", lambda: (toy,))
    monkeypatch.setattr(pytest_items, "scanned", lambda source: NOTHING)

    def go(*served):
        words = [word for text in served for word in ("--moe-verify-serve", text)]
        source = (f"--moe-verify-source={SAMPLES}", f"--moe-verify-python={sys.executable}")
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-rs", *source, *words)

    return go


def test_a_launch_is_an_item_with_a_readable_end(run):
    # another test of this process may hold a browser
    before = set(psutil.Process().children(recursive=True))
    result = run("good:tp2", "wrong:tp2", "missing:tp2", "refused:tp2", "good:tp8")
    result.assert_outcomes(passed=1, failed=3, skipped=1)
    result.stdout.fnmatch_lines_random(
        [
            "serve::wrong::tp2: diverged: 1 nats from one rank (prefill 1)*",
            "serve::missing::tp2: cannot-run: *a kernel*",
            "*the server refuses: *no such launch",
            "--layout tp8: 1 to 4 ranks fit here",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    assert set(psutil.Process().children(recursive=True)) <= before


@pytest.mark.parametrize("text", ["good", ":tp2", "good:"])
def test_another_text_is_a_usage_error(run, text):
    result = run(text)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{text}: want MODEL:LAYOUT"])


def test_without_a_source_there_is_nothing_to_serve(pytester):
    result = pytester.runpytest_inprocess("--moe-verify-serve", "good:tp2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
