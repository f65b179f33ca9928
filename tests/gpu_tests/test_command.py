"""`python -m gpu_tests` and `-m gpu_tests.measure` as a person runs them."""

import json
import os
import socket
import subprocess
import sys

import pytest

from gpu_tests import _cli, expect
from gpu_tests._cli import main
from gpu_tests.costs import main as measure
from gpu_tests.pool import RankFaultError
from gpu_tests.specs import SPECS
from verify.report.render import RENDERERS

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(1200)]

SMALL = ("--model", "llama4", "--dtype", "float32")


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The report of two ranks on this machine, as a file."""
    return report_in(tmp_path_factory.mktemp("alone"))


def report_in(folder):
    file = folder / "report.json"
    words = ("--world-size", "2", *SMALL, "--format", "json", "-q", "--output", str(file))
    assert main(words) == 0
    return file


def test_json_goes_to_stdout_and_one_line_to_stderr():
    done = run("-m", "gpu_tests", "--world-size", "2", *SMALL, "--format", "json")
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["schema_version"] == 2
    assert report["findings"] == []
    first = report["cases"][0]
    assert {"subject", "deployment", "row", "kind", "counts", "max_error"} <= set(first)
    kinds = {case["kind"] for case in report["cases"]}
    assert {"exact", "double", "missing", "mixed", "crash"} == kinds
    assert all(case["kind"] == case["expected"] for case in report["cases"])
    assert done.stderr == (
        "33 cases on 2 ranks: 23 exact, 4 missing, 2 double, 3 mixed, 1 crash; "
        "all as the ledger says; 5 of 5 causes of prove seen\n"
    )


def test_the_same_run_twice_is_the_same_output(alone, tmp_path):
    assert report_in(tmp_path).read_bytes() == alone.read_bytes()


def test_an_error_of_the_tool_itself_is_no_verdict(monkeypatch, capsys):
    def broken(name):
        raise RuntimeError(f"{name} and\na second line")

    monkeypatch.setattr(_cli, "check_guard", broken)
    assert main(("--world-size", "1", *SMALL)) == 3
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("gpu_tests: internal error: RuntimeError: helper and")
    assert "test_command.py:" in err
    assert "; please report it: " in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--world", "1"), "unrecognized arguments: --world"),
        (("--world-size", "1", "--output", "/nodir/x"), "cannot write /nodir/x: No such file"),
        (("--world-size", "1", "--model", "nope"), "invalid choice: 'nope'"),
        (("--world-size", "0"), "--world-size 0 fits no layout"),
        (("--world-size", "1", "--guard", "foo("), "guard 'foo(' is not a Python expression"),
        (("--world-size", "1", "--guard", "__import__('os').abort()"), "guard "),
        (("--world-size", "1", "--backend", "nccl"), "nccl"),
    ],
)
def test_a_bad_input_is_said_before_any_rank_starts(words, says, monkeypatch, capsys):
    monkeypatch.setattr(_cli, "on_this_machine", None)
    try:
        code = main(words)
    except SystemExit as left:
        code = left.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert says in err


def test_help_holds_80_columns_and_says_models_formats_and_exit_codes(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(("--help",))
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if len(line) > 80] == []
    said = " ".join(out.split())
    assert all(word in said for word in (*SPECS, *RENDERERS))
    assert "1 not, 2 cannot run, 3 internal error" in said


def test_quiet_says_nothing(capsys):
    assert main(("--world-size", "1", *SMALL, "-q")) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Real layers on 1 gloo rank\n")
    assert err == ""


def test_a_wrong_ledger_exits_with_one(monkeypatch, capsys):
    wrong = expect.guards("llama4/Llama4MoE.forward", "True")
    monkeypatch.setattr(expect, "guards", lambda *_: wrong)
    assert main(("--world-size", "2", *SMALL)) == 1
    out, err = capsys.readouterr()
    assert "ranks measure exact, the ledger says double" in out
    assert "not as the ledger says; 4 of 5 causes of prove seen\n" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "say how many ranks to start: --world-size N (or use torchrun)"),
        (("--world-size", "40"), "--world-size 40 fits no layout: give 1 to 16"),
        (("--world-size", "2", "--guard", "AF and"), "guard 'AF and' is not a Python expression"),
        (
            ("--world-size", "2", "--experts", "flashinfer"),
            "--experts flashinfer: no GPU: flashinfer needs one, these ranks run on cpu",
        ),
    ],
)
def test_what_cannot_be_run_exits_with_two(words, message, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"gpu_tests: {message}")
    assert err.count("\n") == 1


def test_a_fault_keeps_the_results_so_far(monkeypatch, capsys):
    def two_then_fault(todo, **settings):
        for number, outcome in enumerate(on_this_machine(todo, **settings)):
            if number == 2:
                raise RankFaultError("rank 1 was killed by SIGKILL in case x, while experts")
            yield outcome

    on_this_machine = _cli.on_this_machine
    monkeypatch.setattr(_cli, "on_this_machine", two_then_fault)
    assert main(("--world-size", "2", *SMALL, "--format", "json")) == 2
    out, err = capsys.readouterr()
    assert len(json.loads(out)["cases"]) == 2
    assert err == (
        "gpu_tests: rank 1 was killed by SIGKILL in case x, while experts; 2 of 33 cases were run\n"
    )


@pytest.mark.slow
def test_two_nodes_of_torchrun_give_the_same_answer(alone, tmp_path, without_rounding):
    output = tmp_path / "nodes.json"
    nodes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"),
                *("--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "gpu-tests"),
                *("--rdzv-endpoint", f"localhost:{port()}", "-m", "gpu_tests", *SMALL),
                *("--format", "json", "-q", "--output", str(output)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for port in (_same_free_port(),) * 2
    ]
    messages = [node.communicate(timeout=240)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], messages
    assert without_rounding(output) == without_rounding(alone)


def _same_free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        free = probe.getsockname()[1]
    return lambda: free


@pytest.mark.parametrize("module", ["gpu_tests", "gpu_tests.measure"])
def test_without_torch_one_line_says_so(module):
    hidden = "import runpy, sys; sys.modules['torch'] = None; "
    done = run("-c", f"{hidden}runpy.run_module({module!r}, run_name='__main__')")
    assert done.returncode == 2
    assert done.stderr == "gpu_tests: needs torch, which is not installed: pip install torch\n"


def test_measure_reports_ratios_of_one_run(tmp_path):
    output = tmp_path / "costs.json"
    words = ("--world-size", "2", "--tokens", "1,8", "--hidden", "64", "--intermediate", "32")
    words += ("--floor-rows", "512")
    assert measure((*words, "-q", "--format", "json", "--output", str(output))) == 0
    report = json.loads(output.read_text())
    assert report["command_line"].startswith("python -m gpu_tests.measure --world-size 2")
    kinds = [entry["kind"] for entry in report["measurements"]]
    assert (kinds.count("choice"), kinds.count("bandwidth"), kinds.count("share")) == (10, 6, 2)
    for entry in report["measurements"]:
        times = entry["microseconds"]
        assert min(times.values()) > 0
        if entry["kind"] in ("choice", "bandwidth"):
            assert entry["floor"] > 0
        if entry["kind"] == "share":
            assert times["experts"] > 0


def test_measure_says_what_cannot_be_run(capsys):
    assert measure(("--world-size", "0")) == 2
    assert capsys.readouterr().err.startswith("gpu_tests.measure: --world-size 0 fits no layout")


@pytest.mark.parametrize("words", [("--tokens", "1,x"), ("--hidden", "0"), ("--deadline", "-1")])
def test_numbers_that_are_none_are_refused(words, capsys):
    with pytest.raises(SystemExit) as caught:
        measure(words)
    assert caught.value.code == 2
    assert f"argument {words[0]}" in capsys.readouterr().err
