"""The pytest plugin, run as its users run it."""

import subprocess
import sys

import pytest

from verify.cli import pytest_items
from verify.errors import VerifyError
from verify.report.report import Finding, Report

pytest_plugins = ["pytester"]

CEDAR = {"file": "sglang/srt/models/cedar.py", "cls": "Cedar", "method": "forward", "path": "TP"}
SITES = (
    {**CEDAR, "line": 10, "verdict": "covered"},
    {**CEDAR, "line": 20, "verdict": "finding"},
    {**CEDAR, "line": 30, "verdict": "unresolved", "why": "calls exec()"},
)
AT_A_SITE = Finding(
    rule="missing-skip",
    message="reduces twice",
    fix="skip on DP",
    file=CEDAR["file"],
    line=20,
    cls="Cedar",
    method="forward",
    row="0010",
)
ELSEWHERE = Finding(
    rule="flag-lost", message="nobody passes RS on", file="sglang/srt/models/oak.py", line=5
)


def scanned(source):
    """What the scan would say of a source; the scan itself has its own tests."""
    if source != "here":
        raise VerifyError(f"no such file or directory: {source}")
    return Report(
        command="scan",
        title="",
        summary="",
        payload={"sites": SITES},
        sections=(),
        findings=(AT_A_SITE, ELSEWHERE),
    )


@pytest.fixture
def run(pytester, monkeypatch):
    monkeypatch.setattr(pytest_items, "scanned", scanned)
    pytester.makepyfile(test_own="def test_own():\n    pass\n")

    def go(*arguments):
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", *arguments)

    return go


def test_every_site_is_an_item_with_a_readable_failure(run):
    result = run("--moe-verify-source=here", "-rs")
    result.assert_outcomes(passed=2, failed=2, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "  sglang/srt/models/cedar.py:20 [[]missing-skip] reduces twice",
            "    shown by: row 0010",
            "    fix: skip on DP",
            "  sglang/srt/models/oak.py:5 [[]flag-lost] nobody passes RS on",
            "SKIPPED [[]1] sglang/srt/models/cedar.py: calls exec()",
        ]
    )
    assert "Traceback" not in result.stdout.str()
    assert "pytest_items.py" not in result.stdout.str()


def test_items_have_stable_names(run):
    result = run("--moe-verify-source=here", "--collect-only", "-q")
    result.stdout.fnmatch_lines(
        [
            "test_own.py::test_own",
            "here::sglang/srt/models/cedar.py::Cedar.forward::TP",
            "here::sglang/srt/models/cedar.py::Cedar.forward::TP[[]2]",
            "here::sglang/srt/models/cedar.py::Cedar.forward::TP[[]3]",
            "here::flag-lost sglang/srt/models/oak.py:5",
        ],
        consecutive=True,
    )


@pytest.mark.parametrize(
    ("choice", "outcomes"),
    [
        (["-m", "moe_verify"], {"failed": 2, "passed": 1, "skipped": 1, "deselected": 1}),
        (["-m", "not moe_verify"], {"passed": 1, "deselected": 4}),
        (["-k", "cedar"], {"failed": 1, "passed": 1, "skipped": 1, "deselected": 2}),
        (["-k", "flag-lost"], {"failed": 1, "deselected": 4}),
    ],
)
def test_pytest_chooses_among_sites(run, choice, outcomes):
    run("--moe-verify-source=here", *choice).assert_outcomes(**outcomes)


def test_what_is_left_out_is_counted_among_what_there_is(run):
    result = run("--moe-verify-source=here", "--collect-only", "-k", "cedar")
    result.stdout.fnmatch_lines(["*3/5 tests collected (2 deselected)*"])


def test_a_baseline_accepts(run, pytester):
    pytester.makefile(
        ".json",
        reviewed='{"findings": [{"rule": "missing-skip", "file": "sglang/srt/models/cedar.py"}]}',
    )
    result = run("--moe-verify-source=here", "--moe-verify-expect=reviewed.json")
    result.assert_outcomes(passed=3, failed=1, skipped=1)


def test_a_stale_baseline_fails(run, pytester):
    pytester.makefile(".json", reviewed='{"findings": [{"rule": "lost-sum", "subject": "gone"}]}')
    result = run("--moe-verify-source=here", "--moe-verify-expect=reviewed.json")
    result.assert_outcomes(passed=2, failed=3, skipped=1)
    result.stdout.fnmatch_lines(["*reviewed.json expects lost-sum in gone*"])


@pytest.mark.parametrize(
    "arguments",
    [["--moe-verify-source=none"], ["--moe-verify-source=here", "--moe-verify-expect=none.json"]],
)
def test_what_cannot_be_read_is_a_usage_error(run, arguments):
    result = run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --moe-verify-source: *"])
    assert "Traceback" not in result.stderr.str()


def test_nothing_happens_without_the_option(run):
    run().assert_outcomes(passed=1)


@pytest.mark.parametrize("spread", [(), ("-n2",)])
def test_a_real_source_for_real(pytester, mini_sglang, spread):
    pytester.makepyfile(test_own="def test_own():\n    pass\n")
    result = pytester.runpytest_subprocess(f"--moe-verify-source={mini_sglang}", *spread)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*sglang/srt/models/cedar.py:22 [[]missing-skip]*", "*row 0010"])


def test_the_plugin_costs_others_nothing():
    """Loaded into every run of the environment, it may import nothing of the tool."""
    code = (
        "import sys, pytest; before = set(sys.modules); import verify.pytest_plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert loaded.stdout.split() == ["verify", "verify.pytest_plugin"]
