"""Results in files: kept whole, gone on with, merged; by what makes a case another one."""

import json
import math
import os
import signal
import subprocess
import sys

import pytest

from verify.checks.serve.case import Case, Result
from verify.checks.serve.difference import saved
from verify.checks.serve.layout import parse
from verify.checks.serve.results import Results, Subject, append, digest, read
from verify.errors import VerifyError

SUBJECT = Subject(source="s", builder="b")
CASE = Case(model="m", layout=parse("tp2"))


def result(case=CASE):
    return Result(
        release="toy 1",
        case=case,
        launch=("--tp-size", "2"),
        outcome="diverged",
        dlogprob=float("inf"),
        steps={"prefill": 0.5},
        stand_ins=("a", "b"),
    )


def test_what_is_kept_is_read_back(tmp_path):
    file = tmp_path / "results.jsonl"
    Results(files=[file], subject=SUBJECT).keep(result())
    assert Results(files=[file], subject=SUBJECT).get(CASE) == result()


@pytest.mark.parametrize(
    ("subject", "case"),
    [
        (Subject(source="x", builder="b"), CASE),
        (Subject(source="s", builder="x"), CASE),
        (SUBJECT, Case(model="n", layout=parse("tp2"))),
        (SUBJECT, Case(model="m", layout=parse("tp4"))),
        (SUBJECT, Case(model="m", layout=parse("tp2"), seed=1)),
        (SUBJECT, Case(model="m", layout=parse("tp2"), arguments=("--x",))),
        (SUBJECT, Case(model="m", layout=parse("tp2"), patch=__file__)),
    ],
)
def test_another_case_is_not_taken_for_it(tmp_path, subject, case):
    file = tmp_path / "results.jsonl"
    Results(files=[file], subject=SUBJECT).keep(result())
    assert Results(files=[file], subject=subject).get(case) is None


def test_a_patch_is_known_by_its_content(tmp_path):
    file, patch = tmp_path / "results.jsonl", tmp_path / "patch.py"
    case = Case(model="m", layout=parse("tp2"), patch=str(patch))
    patch.write_text("one")
    Results(files=[file], subject=SUBJECT).keep(result(case))
    assert Results(files=[file], subject=SUBJECT).get(case)
    patch.write_text("two")
    assert Results(files=[file], subject=SUBJECT).get(case) is None


def test_what_a_crash_left_of_a_line_is_no_row_and_goes_with_the_next(tmp_path):
    file = tmp_path / "results.jsonl"
    kept = Results(files=[file], subject=SUBJECT)
    kept.keep(result())
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:30])
    assert len(read(file)) == 1
    kept.keep(result())
    assert file.read_bytes() == whole + whole


@pytest.mark.parametrize("text", ["{}\n", "[1]\n", "no\n", '{"findings": []}', "a note"])
def test_a_file_of_something_else_is_refused_and_stays(tmp_path, text):
    file = tmp_path / "scan.json"
    file.write_text(text)
    with pytest.raises(VerifyError, match=r"scan\.json"):
        Results(files=[file], subject=SUBJECT)
    assert file.read_text() == text


def test_an_answer_that_is_no_number_is_null_in_json(serve, tmp_path):
    file = tmp_path / "results.jsonl"
    assert serve("--model", "lost", "--layout", "tp2", "--results", file) == 1
    (row,) = [json.loads(line, parse_constant=pytest.fail) for line in file.open()]
    (case,) = serve.report["cases"]
    for each in (row, case):
        assert (each["outcome"], each["dlogprob"]) == ("diverged", None)
        assert each["steps"] == {"prefill": None}
    # and is read back as what it was
    assert serve("--model", "lost", "--layout", "tp2", "--results", file) == 1
    assert "inf nats from one rank" in serve.report["findings"][0]["message"]
    (kept,) = saved(str(file)).results.values()
    assert (kept.dlogprob, dict(kept.steps)) == (math.inf, {"prefill": math.inf})


def test_lines_of_two_processes_stay_whole(tmp_path):
    file = tmp_path / "results.jsonl"
    program = (
        "import sys; from pathlib import Path; from verify.checks.serve.results import append\n"
        "for _ in range(200): append(Path(sys.argv[1]), sys.argv[2] * 500)"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(file), word]) for word in "ab"
    ]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert sorted(file.read_text().split()) == ["a" * 500] * 200 + ["b" * 500] * 200


def test_a_process_killed_while_it_writes_leaves_whole_lines(tmp_path):
    file = tmp_path / "results.jsonl"
    program = (
        "import sys; from pathlib import Path; from verify.checks.serve.results import append\n"
        "print(flush=True)\n"
        "while True: append(Path(sys.argv[1]), 'x' * 5000)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(file)], stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        while not file.exists() or file.stat().st_size < 50_000:
            pass
        os.kill(process.pid, signal.SIGKILL)
    append(file, "last")
    *lines, last = file.read_text().splitlines()
    assert set(lines) == {"x" * 5000}
    assert last == "last"


def test_a_digest_is_of_names_and_contents(tmp_path):
    (tmp_path / "a.py").write_text("1")
    first = digest(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("2")
    assert digest(tmp_path) == first
    (tmp_path / "a.py").write_text("2")
    second = digest(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({first, second, digest(tmp_path)}) == 3


def test_a_sweep_goes_on_where_it_stopped_and_merges(serve, tmp_path):
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    assert serve("--model", "good", "--layout", "tp2", "--results", first) == 0
    ran = serve.ran()
    assert serve("--model", "wrong", "--layout", "tp2", "--results", second) == 1
    assert serve.ran()[: len(ran)] == ran
    ran = serve.ran()
    both = ("--results", first, "--results", second)
    assert serve("--model", "good", "--model", "wrong", "--layout", "tp2", *both) == 1
    assert serve.ran() == ran
    outcomes = [(case["model"], case["outcome"]) for case in serve.report["cases"]]
    assert outcomes == [("good", "exact"), ("wrong", "diverged")]
    assert serve("--model", "good", "--layout", "tp2", "--layout", "tp4", *both) == 0
    assert [line.split()[:2] for line in serve.ran()[len(ran) :]] == [
        ["good-0", "1"],
        ["good-0", "4"],
    ]
    assert [json.loads(line)["layout"] for line in first.read_text().splitlines()] == ["tp2", "tp4"]


def test_a_row_says_what_made_it(serve):
    assert serve("--model", "good", "--layout", "tp2") == 0
    (case,) = serve.report["cases"]
    network = case["versions"].pop("network")
    assert network.startswith(("loopback only", "the machine's"))
    assert case["versions"] == {"version": "1", "torch": "0"}
    assert case["stand_ins"] == ["none"]
    assert serve.report["source"]["engine"] == "toy"
    assert len(serve.report["source"]["digest"]) == len(serve.report["builder"]) == 16


def test_what_follows_two_dashes_goes_to_the_server_and_makes_another_case(serve, tmp_path):
    words = ("--model", "good", "--layout", "tp2", "--results", tmp_path / "results.jsonl")
    assert serve(*words, "--", "--x", "1") == 0
    assert serve.report["cases"][0]["launch"] == ["--tp-size", "2", "--x", "1"]
    assert "good-0 2 --tp-size 2 --x 1" in serve.ran()
    ran = len(serve.ran())
    assert serve(*words) == 0
    assert len(serve.ran()) > ran


def test_progress_is_a_line_a_case_and_none_when_quiet(serve, capsys):
    words = ("--model", "good", "--layout", "tp2")
    assert serve(*words) == 0
    assert "verify: 1 good tp2: exact, " in capsys.readouterr().err
    assert serve(*words, "-q") == 0
    assert capsys.readouterr().err == ""
