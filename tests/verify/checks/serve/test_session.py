"""Sessions: limits, ranks that die or hang, and nothing left behind; with a toy engine."""

import os
import sys
import time
from pathlib import Path

import pytest

from verify.checks.serve.session import Engine, Session
from verify.errors import VerifyError

SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture
def session():
    with Session(engine("toy")) as started:
        yield started


def engine(drive):
    return Engine(python=Path(sys.executable), drive=drive, source=SAMPLES, variables={})


def test_every_rank_answers(session):
    answer = session.run({}, ranks=2)
    assert [rank["rows"][0]["step"] for rank in answer["ranks"]] == ["prefill", "prefill"]
    assert answer["ended"]["ranks"] == ["", ""]


def test_a_rank_that_dies_is_named_and_its_peer_ends(session):
    answer = session.run({"ranks_do": {"0": "hang", "1": "die"}}, ranks=2)
    assert answer["ended"]["ranks"] == ["ended with its peer", "signal 9"]
    assert answer["ranks"] == [None, None]


def test_a_rank_that_raises_says_what(session):
    answer = session.run({"ranks_do": {"1": "raise"}}, ranks=2)
    assert answer["ranks"][1]["error"] == "RuntimeError: said by the rank"
    assert answer["ranks"][0]["rows"]


def test_a_rank_that_hangs_meets_the_limit_and_the_session_goes_on(session):
    answer = session.run({"ranks_do": {"0": "hang"}}, ranks=1, limit=0.5)
    assert answer["ended"]["ranks"] == ["time limit"]
    assert session.run({}, ranks=1)["ranks"][0]["rows"]


def test_a_launch_that_fails_before_ranks_says_why(session):
    answer = session.run({"refuse": "no such size"}, ranks=2)
    assert answer["prepare"]["error"] == "ValueError: no such size"
    assert answer["ranks"] == [None, None]


def test_nothing_is_left_behind(session):
    process = session.run({}, ranks=1)["ranks"][0]["process"]
    folder = session.folder
    session.close()
    assert not folder.exists()
    deadline = time.monotonic() + 5
    while _alive(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(process)


def test_an_engine_that_cannot_be_imported_is_one_line():
    with Session(engine("no_such_engine")) as session, pytest.raises(VerifyError) as error:
        session.start()
    assert "no_such_engine" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_python_that_is_not_there_is_one_line(tmp_path):
    lost = Engine(python=tmp_path / "python", drive="toy", variables={})
    with Session(lost) as session, pytest.raises(VerifyError, match="cannot start"):
        session.start()


def _alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
