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
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from uuid import uuid4

import platformdirs
import pytest

from gpu_tests._cli import main as run_ranks
from verify.checks.serve.case import Case, Result
from verify.checks.serve.layout import parse
from verify.checks.serve.report import report as served
from verify.checks.serve.results import Subject
from verify.cli import command_line
from verify.cli.command_line import main
from verify.report.render import table
from verify.report.render.page import Page
from verify.source import cache

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


MADE = {}


def once(run, arguments, *, words):
    """What the command makes, once for all that is shown of it."""
    if words not in MADE:
        MADE[words] = run(arguments)
    return MADE[words]


@pytest.mark.parametrize("name", COMMANDS)
def test_columns_are_held(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    words = tuple(word for word in COMMANDS[name] if word != "--all")
    command = import_module(command_line.COMMANDS[words[0]].module)
    monkeypatch.setattr(command, "run", partial(once, command.run, words=words))
    code = command_line.main([*COMMANDS[name], "-q"])
    out, err = capsys.readouterr()
    assert code in (0, 1), err
    assert too_wide(out) == []


def test_ranks_hold_them_too(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run_ranks(["--world-size", "1", "--model", "qwen3_moe", "-q"]) == 0
    assert too_wide(capsys.readouterr().out) == []


REASON = "Rank 1 declines: expert parallelism over two ranks needs a backend that is not built " * 3
SERVED = [
    Result(
        release="oak 1.2.3",
        case=Case(model=f"{model}_with_a_name_as_long_as_they_get", layout=parse(layout), **more),
        launch=("--tp-size", "4", "--enable-dp-attention", "--moe-a2a-backend", "megamoe"),
        outcome=outcome,
        **found,
    )
    for model, layout, more, outcome, found in (
        ("oak", "tp4.dp2.ep2", {}, "exact", {"dlogprob": 1.234e-7, "tolerance": 1e-4}),
        (
            "elm",
            "tp4.dp4.ep4",
            {"patch": "repair.patch"},
            "diverged",
            {
                "dlogprob": 5.3,
                "tolerance": 1e-4,
                "step": "decode",
                "steps": {"prefill": 1e-7, "decode": 5.3, "decode 2": 4.0, "decode 3": 4.5},
                "module": "model.layers.0.mlp.experts.a_module_that_is_deep_below",
                "accused": {"step": "decode", "rank": 3, "rows": (2, 4), "what": "twice the sum"},
                "patch_moves": 0.5,
            },
        ),
        ("yew", "tp2", {}, "refused", {"reason": REASON}),
        ("ash", "tp2", {}, "cannot-run", {"reason": "x" * 30 + " " + REASON}),
        (
            "fir",
            "tp2.ep2",
            {"thorough": True},
            "ill-conditioned",
            {
                "dlogprob": 1.0,
                "tolerance": 2.0,
                "corruptions": (
                    {
                        "where": "models/fir.py:210 FirSparseMoeBlock.forward_normal",
                        "how": "left out where the block reduces",
                        "seen": "in-module",
                        "nats": 0.25,
                    },
                ),
            },
        ),
    )
]


@pytest.mark.parametrize("everything", [False, True])
def test_what_an_engine_said_holds_them(everything):
    made = served(SERVED, engine="oak", subject=Subject(source="s", builder="b"), named=True)
    text = table.render(replace(made, everything=everything), on=Page(width=80))
    assert too_wide(text) == []
    assert too_wide(table.render(made, on=Page(width=200))) != []
    assert "\x1b" not in text
    for result in SERVED:
        assert result.outcome in text
    # what it says can be read as a sentence, wherever lines end
    plain = " ".join(text.split())
    assert "needs a backend that is not built" in plain
    assert "a_module_that_is_deep_below" in plain


@pytest.mark.parametrize("action", ["dir", "list", "clean"])
def test_the_cache_holds_them(action, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda _: tmp_path / ("a folder " * 9))
    cache.sources().mkdir(parents=True)
    for name in ("1.2.3", "1.2.3.post1+a.local.label.of.some.length"):
        (cache.sources() / f"sglang-{name}-py3-none-any.whl").write_bytes(b"no wheel")
    assert main(["cache", action, "-q"]) == 0
    text = capsys.readouterr().out
    assert too_wide(text) == []
    assert "\x1b" not in text
    assert ("will be fetched again" in " ".join(text.split())) == (action == "list")


def test_a_wider_page_is_used(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    main([*COMMANDS["scan --all"], "-q"])
    assert too_wide(capsys.readouterr().out) != []


def python(*arguments):
    return [sys.executable, "-m", "verify", *arguments, "-q"]


def environment(**changes):
    kept = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")}
    return {**kept, "TERM": "xterm-256color", **changes}


def in_a_terminal(*arguments, loud=False, **changes):
    """What the command writes to a pseudo-terminal of 80 columns."""
    command = python(*arguments)[: -1 if loud else None]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(**changes)
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


@pytest.mark.parametrize(
    ("arguments", "lines", "said"),
    [
        (("scan", SAMPLE), "24", True),
        (("scan", SAMPLE), "100", False),
        (("scan", SAMPLE, "-q"), "24", False),
        (("scan", SAMPLE, "--format", "markdown"), "24", False),
        (("cache", "dir"), "24", False),
    ],
)
def test_who_has_scrolled_past_what_is_wrong_is_told_where_it_is(arguments, lines, said):
    shown = ESCAPES.sub("", in_a_terminal(*arguments, loud=True, LINES=lines))
    last = shown.rstrip("\n").rpartition("\n")[2]
    assert ("| less" in shown) is said
    if said:
        assert last.startswith("what is wrong has gone by")


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
