"""Progress: on a terminal, after a second, and nowhere else."""

import io
import re
import threading
import time
from contextlib import redirect_stderr

import pytest

from verify.report import progress
from verify.report.progress import fitted, quiet, track, waiting


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)


def written(items, *, stream=None, **options):
    """What standard error got; the items must come through unchanged."""
    stream = stream or Terminal()
    expected = list(items)
    with redirect_stderr(stream):
        assert list(track(items, what="files read", **options)) == expected
    return stream.getvalue()


def test_shows_how_many_are_done():
    assert "files read" in written(["a", "b"])
    assert "2/2" in written(["a", "b"])


def test_counts_what_has_no_length():
    stream = Terminal()
    with redirect_stderr(stream):
        assert list(track(iter("abc"), what="cases run", total=3)) == ["a", "b", "c"]
    assert "3/3" in stream.getvalue()


def test_says_nothing_in_the_first_second(monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 60.0)
    assert written("ab") == ""


def test_says_nothing_when_quiet():
    with quiet():
        assert written("ab") == ""
    assert written("ab") != ""


def test_says_nothing_without_a_terminal():
    assert written("ab", stream=io.StringIO()) == ""


def test_no_color(monkeypatch):
    assert "\x1b[3" in written("ab")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in written("ab")


def test_a_loop_left_early_shows_the_cursor_again():
    stream = Terminal()
    with redirect_stderr(stream):
        items = track("abc", what="files read")
        next(items)
        next(items)
        items.close()
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h") == 1


def test_a_log_gets_a_line_now_and_then_with_what_is_left(monkeypatch):
    monkeypatch.setattr(progress, "HEARTBEAT", 0.05)
    stream = io.StringIO()

    def slow():
        yield "a"
        time.sleep(0.3)
        yield "b"

    with redirect_stderr(stream):
        assert list(track(slow(), what="cases replayed", total=2)) == ["a", "b"]
    lines = stream.getvalue().splitlines()
    assert len(lines) >= 2
    assert re.fullmatch(r"verify: 1/2 cases replayed after \d+ s, about \d+ s left", lines[-1])
    with quiet(), redirect_stderr(stream):
        list(track(slow(), what="cases replayed", total=2))
    assert stream.getvalue().splitlines() == lines


def test_the_line_comes_even_when_nothing_is_done(monkeypatch):
    monkeypatch.setattr(progress, "HEARTBEAT", 0.05)
    stream = io.StringIO()
    with redirect_stderr(stream), waiting("fetching sglang==0.5.19"):
        time.sleep(0.2)
    assert stream.getvalue().startswith("verify: fetching sglang==0.5.19: 0 s so far\n")


def test_a_terminal_shows_what_is_waited_for_and_the_cursor_again(monkeypatch):
    stream = Terminal()
    with redirect_stderr(stream), waiting("fetching sglang==0.5.19"):
        time.sleep(0.2)
    assert "fetching sglang==0.5.19" in stream.getvalue()
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h") == 1


def test_no_thread_is_left():
    before = set(threading.enumerate())
    with redirect_stderr(io.StringIO()), waiting("x"):
        (own,) = set(threading.enumerate()) - before
    assert not own.is_alive()


def test_a_line_is_broken_between_words_where_a_terminal_shows_it(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    line = "8 causes, a-hyphenated-word of 39 models and_a_name_wider_than_that"
    assert fitted(line) == line
    with redirect_stderr(Terminal()):
        broken = fitted(line).split("\n")
    assert broken == [
        "8 causes,",
        "  a-hyphenated-word",
        "  of 39 models",
        "  and_a_name_wider_than_that",
    ]
