"""Every command holds 80 columns: told by COLUMNS, in a pseudo-terminal, and in a real one."""

import fcntl
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from gpu_tests._cli import main as run_ranks
from verify.cli.command_line import main

SAMPLE = str(Path(__file__).parents[2] / "samples" / "mini_sglang")
SMALL_SERVER = str(Path(__file__).parents[1] / "checks" / "replay" / "samples" / "small_server")
SITE = "qwen3_moe/Qwen3MoeSparseMoeBlock.forward_normal/EP"
COMMANDS = {
    "report": ["report", "--judge"],
    "explain": ["explain", SITE],
    "scan": ["scan", SAMPLE],
    "scan --all": ["scan", SAMPLE, "--all"],
    "prove": ["prove", "--max-ranks", "4"],
    "prove --all": ["prove", "--max-ranks", "4", "--all"],
    "diff": ["diff", SAMPLE, SAMPLE],
    "rules": ["rule"],
    "rule": ["rule", "missing-skip"],
    "replay": ["replay", SMALL_SERVER, "--world-size", "2"],
    "replay --all": ["replay", SMALL_SERVER, "--world-size", "2", "--all"],
}
ESCAPES = re.compile(r"\x1b\]8;[^\x1b\x07]*(?:\x1b\\|\x07)|\x1b\[[0-9;?]*[A-Za-z]")
TIME_LIMIT_S = 60


def too_wide(text, width=80):
    """Lines wider than the page that are not one name, which is never cut."""
    return [line for line in text.splitlines() if len(line) > width and len(line.split()) > 1]


@pytest.mark.parametrize("name", COMMANDS)
def test_columns_are_held(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*COMMANDS[name], "-q"]) in (0, 1)
    assert too_wide(capsys.readouterr().out) == []


def test_ranks_hold_them_too(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run_ranks(["--world-size", "1", "--model", "qwen3_moe", "-q"]) == 0
    assert too_wide(capsys.readouterr().out) == []


def test_a_wider_page_is_used(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    main([*COMMANDS["scan --all"], "-q"])
    assert too_wide(capsys.readouterr().out) != []


def python(*arguments):
    return [sys.executable, "-m", "verify", *arguments, "-q"]


def environment(**changes):
    kept = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")}
    return {**kept, "TERM": "xterm-256color", **changes}


def in_a_terminal(*arguments, **changes):
    """What the command writes to a pseudo-terminal of 80 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        python(*arguments), stdin=theirs, stdout=theirs, stderr=theirs, env=environment(**changes)
    )
    os.close(theirs)
    pieces = []
    with suppress(OSError):  # the end of a pseudo-terminal is an error on Linux
        while piece := os.read(ours, 65536):
            pieces.append(piece)
    os.close(ours)
    assert process.wait(TIME_LIMIT_S) in (0, 1)
    return b"".join(pieces).decode().replace("\r\n", "\n")


def test_a_terminal_has_colours_and_80_columns():
    text = in_a_terminal("scan", SAMPLE)
    assert "\x1b[31merror\x1b[0m" in text
    plain = ESCAPES.sub("", text)
    assert "\x1b" not in plain
    assert too_wide(plain) == []
    assert "cedar.py:22" in plain


@pytest.mark.parametrize("change", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_without_colours_gets_none(change):
    assert "\x1b" not in in_a_terminal("scan", SAMPLE, **change)


def test_a_file_gets_no_colours(tmp_path):
    file = tmp_path / "report.txt"
    in_a_terminal("scan", SAMPLE, "--output", str(file))
    assert "\x1b" not in file.read_text("utf-8")


def test_a_real_terminal_shows_it(tmp_path):
    if not shutil.which("tmux"):
        pytest.skip("needs tmux")
    tmux = ["tmux", "-f", os.devnull, "-S", str(tmp_path / uuid4().hex[:8])]
    done = tmp_path / "done"
    command = f"{shlex.join(python('scan', SAMPLE))}; touch {shlex.quote(str(done))}; sleep 60"
    start = [*tmux, "new-session", "-d", "-x", "80", "-y", "60", command]
    subprocess.run(start, check=True, env=environment(), timeout=TIME_LIMIT_S)
    try:
        until = time.monotonic() + TIME_LIMIT_S
        while not done.exists():
            assert time.monotonic() < until
            time.sleep(0.1)
        capture = [*tmux, "capture-pane", "-p", "-S", "-"]
        shown = subprocess.run(
            capture, check=True, capture_output=True, text=True, timeout=TIME_LIMIT_S
        ).stdout
    finally:
        subprocess.run([*tmux, "kill-server"], check=False, timeout=TIME_LIMIT_S)
    lines = [line.rstrip() for line in shown.splitlines()]
    # nothing was wrapped by the terminal: each line is as it is without one
    printed = subprocess.run(
        python("scan", SAMPLE), capture_output=True, text=True, check=False, timeout=TIME_LIMIT_S
    ).stdout
    assert [line for line in lines if line] == [line for line in printed.splitlines() if line]
