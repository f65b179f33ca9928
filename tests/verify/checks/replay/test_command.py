"""The command end to end, on a small server: what is right, and every way to be wrong."""

import json
import os
import re
from pathlib import Path

import pytest

from verify.checks.replay import overview
from verify.checks.replay.decoders import Models
from verify.checks.replay.deployments import executable
from verify.checks.replay.processes import Case, run_cases
from verify.cli.command_line import RENDERERS, main
from verify.emulator.tree import SourceFiles
from verify.engines.sources import open_source

DECODE = "dp_size=2,ep_size=2,padding=max_len,dense_fully_dp=False,quantization=None"
PLAIN = "dp_size=1,ep_size=2,attn_cp_size=1,fusion=off,dense_fully_dp=False"


@pytest.fixture
def replay(capsys):
    def run(source, *deployments, code):
        filters = [word for text in deployments for word in ("--deployment", text)]
        asked = ["replay", str(source), "--world-size", "2", "--jobs", "1", "--format", "json"]
        assert main([*asked, *filters, "-q"]) == code
        captured = capsys.readouterr()
        return json.loads(captured.out) if code < 2 else captured.err

    return run


def test_the_small_server_adds_every_partial_sum_exactly_once(small_server, replay):
    report = replay(small_server, DECODE, PLAIN, code=0)
    assert report["source"]["version"] == "1.2.3"
    assert [case["kind"] for case in report["cases"]] == ["exact"] * len(report["cases"])
    assert {case["subject"] for case in report["cases"]} == {"oak/OakDecoderLayer"}
    assert {case["row"] for case in report["cases"]} == {"0000", "0100"}
    assert all(case["counts"] == [[1, 1], [1, 1]] for case in report["cases"])
    assert all(case["max_error"] == 0 for case in report["cases"])


def test_the_row_is_what_the_source_itself_answers(altered, replay):
    flag = "def should_use_dp_reduce_scatterv():\n    return _EP_SIZE == 2\n\n\n"
    source = altered("layers/moe/utils.py", "def get_moe_ep_size", f"{flag}def get_moe_ep_size")
    rows = {case["row"] for case in replay(source, DECODE, PLAIN, code=0)["cases"]}
    assert rows == {"0010", "0110"}


def test_the_report_says_what_was_replaced(small_server, replay):
    replaced = replay(small_server, PLAIN, code=0)["replaced"]
    assert replaced["sglang/srt/distributed/parallel_state.py:5 GroupCoordinator"] == "ours"
    assert any(name.endswith(" UnquantizedFusedMoEMethod.apply") for name in replaced)
    assert not any("OakBlock" in name or "LayerCommunicator" in name for name in replaced)


@pytest.mark.parametrize(
    ("path", "old", "new", "kind", "counts"),
    [
        pytest.param(
            "models/oak.py",
            "if not use_reduce_scatter:",
            "if True:",
            "double",
            [[2, 2], [2, 2]],
            id="the block reduces although a reduce-scatter follows",
        ),
        pytest.param(
            "layers/communicator.py",
            "        if self.will_reduce_scatter(forward_batch):",
            "        if False:",
            "missing",
            [[1, 0], [0, 1]],
            id="the block skips and nobody reduces",
        ),
        pytest.param(
            "models/oak.py",
            "        hidden_states = self.experts(hidden_states)\n",
            "        hidden_states = self.experts(hidden_states) * (1 + get_tp_group().rank)\n",
            "double",
            [[1, 2], [1, 2]],
            id="one rank's partial weighs twice",
        ),
        pytest.param(
            "layers/communicator.py",
            "            return rows\n        start",
            "            return rows.flip(0)\n        start",
            "mixed",
            [[1, 1], [1, 1]],
            id="sums of other tokens come back",
        ),
        pytest.param(
            "models/oak.py",
            "forward_batch)\n        return hidden_states\n",
            "forward_batch)\n        alone = get_tp_group().world_size == 1\n"
            "        return hidden_states if alone else hidden_states.flip(0)\n",
            "wrong tokens",
            None,
            id="a rank ends with its tokens in another order",
        ),
        pytest.param(
            "models/oak.py",
            "        for layer in self.layers:\n",
            "        if get_tp_group().rank == 0:\n"
            "            get_tp_group().all_reduce(hidden_states)\n"
            "        for layer in self.layers[:0]:\n",
            "hang",
            None,
            id="one rank waits for another that never comes",
        ),
        pytest.param(
            "layers/communicator.py",
            "            get_tp_group().reduce_scatter_tensor(rows, hidden_states)\n",
            "            if get_tp_group().rank == 0:\n"
            "                get_tp_group().reduce_scatter_tensor(rows, hidden_states)\n",
            "crash",
            None,
            id="ranks of one group enter different collectives",
        ),
        pytest.param(
            "layers/communicator.py",
            "rows = get_local_dp_buffer()",
            "rows = get_local_dp_buffer()[: 1 + get_tp_group().rank]",
            "crash",
            None,
            id="the buffer is smaller than the share",
        ),
    ],
)
def test_a_broken_server_is_found(altered, replay, path, old, new, kind, counts):  # noqa: PLR0917 (pytest names them)
    report = replay(altered(path, old, new), DECODE, code=1)
    kinds = {case["kind"] for case in report["cases"]}
    assert kinds == {kind}
    case = report["cases"][0]
    assert case["counts"] == counts
    finding = report["findings"][0]
    assert finding["rule"] == f"replay-{kind.replace(' ', '-')}"
    assert finding["file"] == "sglang/srt/models/oak.py"
    assert finding["cls"] == "OakDecoderLayer"
    if counts:
        assert "layers.*.mlp.experts" in finding["message"]


def test_what_cannot_be_executed_says_what_is_missing(altered, replay):
    source = altered(
        "models/oak.py",
        "        hidden_states = self.experts(hidden_states)\n",
        "        from fast_kernels import gate\n"
        "        hidden_states = self.experts(gate(hidden_states))\n",
    )
    error = replay(source, PLAIN, code=2)
    assert "cases could run: 1 x " in error
    assert "would call fast_kernels.gate, which is replaced here" in error
    assert "models/oak.py" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("code_of_source", "said"),
    [
        ("__import__('socket').socket()", "the network (socket."),
        ("__import__('subprocess').run(['true'])", "a program (subprocess.Popen)"),
        ("open('/tmp/replayed', 'w')", "would write '/tmp/replayed': refused"),
    ],
)
def test_replayed_code_gets_nowhere(altered, replay, code_of_source, said):
    source = altered(
        "models/oak.py",
        "        hidden_states = self.experts(hidden_states)\n",
        f"        {code_of_source}\n        hidden_states = self.experts(hidden_states)\n",
    )
    assert said in replay(source, PLAIN, code=2)


def test_variables_reach_the_source_and_only_those_asked_for(altered, small_server, capsys):
    source = altered(
        "models/oak.py",
        "        hidden_states = self.experts(hidden_states)\n",
        "        import os\n"
        "        hidden_states = self.experts(hidden_states) * int(os.environ.get('OAKS', 1))\n",
    )
    asked = ["replay", str(source), "--world-size", "2", "--deployment", PLAIN, "-q"]
    assert main([*asked, "--env", "OAKS=x"]) == 2
    assert "invalid literal for int() with base 10: 'x'" in capsys.readouterr().err
    assert main(asked) == 0
    assert "invalid literal" not in capsys.readouterr().out


def test_text_shows_the_layer_that_is_wrong(altered, capsys):
    source = altered("models/oak.py", "if not use_reduce_scatter:", "if True:")
    assert main(["replay", str(source), "--world-size", "2", "--deployment", DECODE, "-q"]) == 1
    shown = capsys.readouterr().out
    assert "  here\n" in shown
    assert re.search(r"\n   > +\d+  class OakDecoderLayer", shown)


def test_a_source_that_ends_the_process_is_a_result_not_an_end(altered, replay):
    source = altered(
        "models/oak.py",
        "        hidden_states = self.experts(hidden_states)\n",
        "        __import__('os')._exit(7)\n",
    )
    error = replay(source, PLAIN, DECODE, code=2)
    assert "none of 2 cases could run: 2 x the process ended with code 7" in error


def test_no_case_that_runs_is_no_report(altered, tmp_path, capsys, monkeypatch):
    """In no format; the case runs for the first."""
    source = altered(
        "models/oak.py",
        "        hidden_states = self.experts(hidden_states)\n",
        "        assert 0\n",
    )
    ran = []

    def once(*asked, **options):
        if not ran:
            ran.extend(run_cases(*asked, **options))
        return iter(ran)

    monkeypatch.setattr(overview, "run_cases", once)
    output = tmp_path / "out"
    words = ["replay", str(source), "--world-size", "2", "--jobs", "1", "--deployment", PLAIN]
    for name in sorted(RENDERERS):
        assert main([*words, "-q", "--format", name, "--output", str(output)]) == 2
        captured = capsys.readouterr()
        assert "none of 1 cases could run" in captured.err
        assert not captured.out
        assert not output.exists()


BLOCK = "        hidden_states = self.experts(hidden_states)\n"
REFUSES = "        assert not use_reduce_scatter, 'not here'\n"


def test_some_cases_that_cannot_run_are_counted_by_reason(altered, capsys):
    source = altered("models/oak.py", BLOCK, REFUSES + BLOCK)
    words = ["replay", str(source), "--world-size", "2", "--jobs", "1", "--format", "json"]
    assert main([*words, "--deployment", PLAIN, "--deployment", DECODE]) == 0
    captured = capsys.readouterr()
    (reason, count), *_ = json.loads(captured.out)["cannot_run"].items()
    assert count == 1
    assert f"cannot run, 1: {reason[:40]}" in captured.err


def test_a_model_asked_for_by_name_that_cannot_run_is_a_finding(altered, capsys):
    """Its neighbour runs: the run as a whole is not empty, and not green."""
    source = altered("models/oak.py", "", "")
    models = source / "sglang" / "srt" / "models"
    (models / "elm.py").write_text((models / "oak.py").read_text().replace("Oak", "Elm"))
    altered("models/elm.py", BLOCK, "        assert False\n")
    words = ["replay", str(source), "--world-size", "2", "--jobs", "1", "--format", "json", "-q"]
    both = ["--model", "oak", "--model", "elm"]
    assert main([*words, "--deployment", PLAIN, *both]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["rule"], finding["subject"]) == ("not-analysed", "elm/ElmDecoderLayer")
    assert main([*words, "--deployment", PLAIN]) == 0


def child_processes():
    listing = Path(f"/proc/{os.getpid()}/task")
    for task in listing.iterdir():
        yield from (task / "children").read_text().split()


def test_who_stops_reading_leaves_no_process(small_server):
    layers = Models(SourceFiles(open_source(str(small_server), below=""))).decoders("oak")
    decoder = next(layers)
    cases = [Case(decoder=decoder, deployment=d) for d in tuple(executable(2))[:8]]
    before = set(child_processes())
    results = run_cases(str(small_server), [[case] for case in cases], jobs=2)
    next(results)
    results.close()
    assert set(child_processes()) <= before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--world-size", "9"), "--world-size 9: 1 to 8 ranks fit here"),
        (("--deployment", "dp_size=3"), "--deployment dp_size=3: matches none of"),
        (("--deployment", "dp_size"), "--deployment dp_size: want KEY=VALUE, not 'dp_size'; keys"),
        (("--deployment", "dp_size=2,"), "--deployment dp_size=2,: want KEY=VALUE, not ''; keys"),
        (("--model", "elm"), "no model elm in"),
        (("--env", "=1"), "--env =1: want NAME=VALUE"),
    ],
)
def test_usage_errors_are_one_line(small_server, capsys, arguments, said):
    assert main(["replay", str(small_server), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("package", ["torch", "msgspec"])
def test_without_a_package_it_says_so(small_server, capsys, monkeypatch, package):
    monkeypatch.setattr(
        "verify.checks.replay.command.find_spec", lambda name: None if name == package else name
    )
    assert main(["replay", str(small_server)]) == 2
    assert capsys.readouterr().err == (
        f"verify: replay needs {package}, which is not installed: pip install {package}\n"
    )


def test_a_child_finds_the_packages_that_its_parent_was_given(
    altered, replay, tmp_path, monkeypatch
):
    # a package that is installed has no such name
    source = altered("server_args.py", "from dataclasses import", "from msgspec import")
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "msgspec.py").write_text("from dataclasses import dataclass\n")
    assert "none of" in replay(source, PLAIN, code=2)
    monkeypatch.setenv("PYTHONPATH", os.path.relpath(packages))
    assert {case["kind"] for case in replay(source, PLAIN, code=0)["cases"]} == {"exact"}


def test_help_says_that_it_executes_code(capsys):
    with pytest.raises(SystemExit):
        main(["replay", "--help"])
    assert "EXECUTES third-party code" in capsys.readouterr().out
