"""A command that is stopped while ranks run leaves no process and no folder; waits say for what."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from verify.checks.serve import session
from verify.checks.serve.ended import classify
from verify.engines.sglang.serving import ENGINE
from verify.errors import VerifyError

SAMPLES = Path(__file__).parent / "samples"
ROOT = Path(__file__).parents[4]
LIMIT_S = 60.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ends with its parent on Linux")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_ranks_and_folders_go_with_the_command(tmp_path, number):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    words = ["serve", SAMPLES, "--python", sys.executable, "--model", "slow", "--layout", "tp2"]
    with subprocess.Popen(
        [sys.executable, SAMPLES / "toyrun.py", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
        text=True,
        # tests that run under nohup would hand down a SIGHUP that is ignored
        preexec_fn=partial(signal.signal, number, signal.SIG_DFL),  # noqa: PLW1509 (no threads here)
    ) as process:
        # the engine's process, the case's, and its one rank
        family = wait_for(lambda: f if len(f := children(process)) == 3 else None)
        assert list(scratch.iterdir())
        process.send_signal(number)
        _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == (2 if number == signal.SIGINT else -number)
    assert "Traceback" not in said
    wait_for(lambda: not any(one.is_running() for one in family))
    assert not list(scratch.iterdir())


def test_a_rank_that_meets_the_limit_is_named_with_what_it_last_said():
    answer = {
        "prepare": None,
        "ranks": [None, None],
        "ended": {"ranks": ["time limit", "time limit"]},
        "said": ["loading\nin all_reduce\n", ""],
    }
    outcome, why = classify(answer, engine=ENGINE)
    assert outcome == "cannot-run"
    assert why == "waited 240 s for ranks 0, 1: gave up; rank 0 said last: in all_reduce"


def test_an_engine_that_does_not_get_imported_is_waited_for_so_long(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "START_S", 0.5)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho busy >&2\nexec sleep 600\n")
    python.chmod(0o755)
    late = session.Engine(python=python, drive="toy", variables={})
    with (
        session.Session(late) as started,
        pytest.raises(VerifyError, match=r"waited 0.5 s for .*python to import.*\(busy\)"),
    ):
        started.start()


def children(process):
    return psutil.Process(process.pid).children(recursive=True)


def wait_for(what):
    limit = time.monotonic() + LIMIT_S
    while not (answer := what()):
        assert time.monotonic() < limit
        time.sleep(0.02)
    return answer
