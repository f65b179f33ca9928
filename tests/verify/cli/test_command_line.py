"""The command line as a process: exit codes, streams, files, and nothing imported in vain."""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from verify.cli import command_line
from verify.errors import VerifyError
from verify.report import about
from verify.report.report import Finding, Report

REPORT = Report(
    command="report",
    title="a title",
    summary="a summary",
    payload={"name": "\udc80 é"},
    sections=(),
    findings=(),
)
WRONG = Finding(rule="a-rule", message="a message")


def verify(
    *words: str, stdout: int | None = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "verify", *words],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Report]], None]:
    """Makes `verify report` answer with what the test wants."""

    def install(run: Callable[[], Report]) -> None:
        monkeypatch.setattr("verify.checks.pull_request.command.run", lambda arguments: run())

    return install


def test_no_command_is_usage() -> None:
    done = verify()
    assert done.returncode == 2
    assert done.stdout == b""
    needed = b"python -m verify: the following arguments are required: COMMAND"
    assert done.stderr == needed + b"; --help says what it takes\n"


def test_an_unknown_command_is_usage() -> None:
    done = verify("reprot")
    assert done.returncode == 2
    assert b"invalid choice: 'reprot'" in done.stderr


def test_help_names_every_command() -> None:
    done = verify("--help")
    assert done.returncode == 0
    assert all(name.encode() in done.stdout for name in command_line.COMMANDS)


def test_the_report_imports_no_torch_and_little_else() -> None:
    script = (
        "import sys; from verify.cli.command_line import main; "
        "code = main(['report', '--quiet', '--output', '/dev/null']); "
        "print(code, *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    code, *modules = done.stdout.split()
    assert code == "0"
    assert not {"torch", "numpy", "hypothesis", "pytest", "jinja2"} & set(modules)


def test_two_processes_write_the_same_bytes() -> None:
    first, second = (verify("report", PYTHONHASHSEED=seed) for seed in ("1", "2"))
    assert first.stdout == second.stdout


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = verify("report", stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (2, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = verify("report", stdout=full.fileno())
    assert done.returncode == 2
    assert done.stderr == (b"verify: cannot write to standard output: No space left on device\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_where_nothing_can_be_said_the_exit_code_stays() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "verify", "scan", "/nowhere"],
            stdout=subprocess.PIPE,
            stderr=full,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stdout) == (2, b"")


def test_an_ascii_terminal_is_no_traceback() -> None:
    done = verify("report", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert b"-----" in done.stdout
    assert b"???" not in done.stdout


def test_a_device_is_written_to_not_replaced() -> None:
    before = os.stat(os.devnull)
    done = verify("report", "--output", os.devnull)
    assert done.returncode == 0
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode) == stat.S_ISCHR(before.st_mode)


@pytest.mark.parametrize(
    ("findings", "words", "code"),
    [
        ((), [], 0),
        ((WRONG,), [], 1),
        ((WRONG,), ["--fail-on", "never"], 0),
        ((), ["--fail-on", "never"], 0),
    ],
)
def test_exit_codes(
    findings: tuple[Finding, ...],
    words: list[str],
    code: int,
    answer: Callable[[Callable[[], Report]], None],
) -> None:
    report = Report(
        command="report", title="t", summary="s", payload={}, sections=(), findings=findings
    )
    answer(lambda: report)
    assert command_line.main(["report", *words]) == code


def test_an_error_is_one_line_whatever_it_says(
    answer: Callable[[Callable[[], Report]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> Report:
        raise VerifyError("two\nlines \x1b[31mand a colour")

    answer(fail)
    assert command_line.main(["report"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "verify: two lines \\x1b[31mand a colour\n"


def test_an_interrupt_is_one_line(
    answer: Callable[[Callable[[], Report]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> Report:
        raise KeyboardInterrupt

    answer(interrupt)
    assert command_line.main(["report"]) == 2
    assert capsys.readouterr().err == "verify: interrupted\n"


def test_a_file_keeps_what_it_had_when_the_command_fails(
    tmp_path: Path, answer: Callable[[Callable[[], Report]], None]
) -> None:
    def fail() -> Report:
        raise VerifyError("no")

    target = tmp_path / "report"
    target.write_text("before")
    answer(fail)
    assert command_line.main(["report", "--output", str(target)]) == 2
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_draft_that_cannot_be_moved_is_removed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[Callable[[], Report]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    answer(lambda: REPORT)
    assert command_line.main(["report", "--output", str(tmp_path / "report")]) == 2
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == (
        f"verify: cannot write {tmp_path / 'report'}: No space left on device\n"
    )


def test_a_file_may_be_read_by_whom_the_umask_allows(
    tmp_path: Path, answer: Callable[[Callable[[], Report]], None]
) -> None:
    beside = tmp_path / "beside"
    beside.touch()
    answer(lambda: REPORT)
    command_line.main(["report", "--output", str(tmp_path / "report")])
    assert (tmp_path / "report").stat().st_mode == beside.stat().st_mode


def test_a_link_stays_a_link(
    tmp_path: Path, answer: Callable[[Callable[[], Report]], None]
) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.touch()
    link.symlink_to(real)
    answer(lambda: REPORT)
    command_line.main(["report", "--output", str(link)])
    assert link.is_symlink()
    assert real.stat().st_size > 0


@pytest.mark.parametrize("format_name", ["table", "markdown", "json"])
def test_text_that_utf8_cannot_hold_is_escaped(
    format_name: str, tmp_path: Path, answer: Callable[[Callable[[], Report]], None]
) -> None:
    answer(lambda: REPORT)
    target = tmp_path / "report"
    assert command_line.main(["report", "--format", format_name, "--output", str(target)]) == 0
    target.read_text(encoding="utf-8")


def test_an_internal_error_is_one_line_and_no_finding(monkeypatch, capsys):
    def broken(_arguments):
        raise AssertionError("nobody expects\nthis")

    monkeypatch.setattr("verify.checks.scan.command.run", broken)
    assert command_line.main(["scan", "anything"]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "internal error: AssertionError: nobody expects" in captured.err
    assert re.search(r"test_command_line.py:\d+\); please report it: \S+", captured.err)


def test_an_internal_error_is_reported_where_the_project_says(monkeypatch, capsys):
    monkeypatch.setattr(about, "addresses", lambda: {"Issues": "https://example.org/issues"})
    test_an_internal_error_is_one_line_and_no_finding(monkeypatch, capsys)
    monkeypatch.setattr("verify.checks.scan.command.run", None)
    assert command_line.main(["scan", "anything"]) == 3
    assert capsys.readouterr().err.endswith("please report it: https://example.org/issues\n")
