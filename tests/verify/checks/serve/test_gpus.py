"""`serve --device cuda`: what is refused, what keeps its cases apart, and its processes.

SERVE_PYTHON names a Python with the packages: there the engine is the one of CPU ranks. With
SERVE_GPU_PYTHON, one with the release's kernels, and GPUs, it is itself.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from verify.checks.serve import sweep
from verify.cli import command_line
from verify.engines.engine import BFLOAT16, FLOAT32
from verify.engines.registry import engines
from verify.engines.sglang.serving import ENGINE, tables
from verify.engines.sglang.serving.inside import stubs

SAMPLES = Path(__file__).parent / "samples"
PYTHON = os.environ.get("SERVE_PYTHON")
GPU_PYTHON = os.environ.get("SERVE_GPU_PYTHON")
GPU = ENGINE.devices["cuda"]


@pytest.fixture
def toy(serve, monkeypatch):
    """The toy engine has a GPU of its own kind: its drive says how many there are."""

    def of(gpus):
        cuda = replace(
            serve.engine,
            drive="toygpus",
            variables={"TOY_GPUS": str(gpus)},
            device="cuda",
            caged=False,
            fresh=True,
        )
        whole = replace(serve.engine, devices={"cuda": cuda})
        monkeypatch.setattr(sweep, "engines", lambda: (whole,))
        return serve

    return of


@pytest.mark.parametrize(("gpus", "said"), [(0, "sees 0 GPUs"), (1, "sees 1 GPU"), (2, "2 GPUs")])
def test_too_few_gpus_are_one_line_before_anything_runs(toy, capsys, gpus, said):
    serve = toy(gpus)
    words = ("--device", "cuda", "--model", "right", "--layout", "tp2", "--layout", "tp4")
    assert serve(*words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("verify: --device cuda: tp4 needs 4 GPUs, and ")
    assert line.endswith(said)
    assert serve.ran() == []


def test_enough_gpus_serve_in_one_run_what_takes_several_on_a_cpu(toy):
    serve = toy(2)
    assert serve("--device", "cuda", "--model", "normed", "--layout", "tp2") == 0
    assert len(serve.ran()) == 2
    (case,) = serve.report["cases"]
    assert case["versions"]["device"] == "2 x toy"
    seen = {each["how"]: each["seen"] for each in case["corruptions"]}
    assert seen == {"doubled": "in-module", "zero": "diverged"}


def test_a_failing_rank_s_last_words_are_in_the_report_and_on_the_terminal(toy, capsys):
    serve = toy(2)
    words = ("--device", "cuda", "--model", "right", "--model", "loud", "--layout", "tp2")
    assert serve(*words) == 1
    case = serve.report["cases"][1]
    assert case["outcome"] == "cannot-run"
    assert "words before the end" in case["said"][1]
    assert "RuntimeError: the end" in case["said"][1]
    assert "words before the end" in capsys.readouterr().err


def test_a_launch_that_rank_0_reads_is_refused_by_it(toy):
    serve = toy(2)
    words = ("--device", "cuda", "--model", "right", "--model", "unread", "--layout", "tp2")
    assert serve(*words) == 0
    case = serve.report["cases"][1]
    assert (case["outcome"], case["reason"]) == ("refused", "no such launch")


def test_a_cpu_s_result_is_no_gpu_s(toy, tmp_path):
    serve, kept = toy(2), tmp_path / "kept.jsonl"
    words = ("--model", "right", "--layout", "tp2", "--results", kept)
    assert serve(*words) == 0
    before = len(serve.ran())
    assert serve(*words, "--device", "cuda") == 0
    assert len(serve.ran()) > before
    after = len(serve.ran())
    assert serve(*words, "--device", "cuda") == 0
    assert len(serve.ran()) == after


def test_a_python_has_to_be_named_and_an_engine_served_there(capsys, tmp_path):
    folder = tmp_path / "sglang"
    folder.mkdir()
    (folder / "__init__.py").touch()
    words = ["--device", "cuda", "--model", "qwen3_moe", "--layout", "tp2"]
    assert command_line.main(["serve", str(tmp_path), *words]) == 2
    assert "needs --python PATH" in capsys.readouterr().err
    folder.rename(tmp_path / "vllm")
    assert command_line.main(["serve", str(tmp_path), "--python", sys.executable, *words]) == 2
    assert "vllm is served on cpu only" in capsys.readouterr().err


def test_nothing_of_the_cpu_s_is_put_in_the_place_of_a_kernel():
    assert "sgl_kernel" in stubs.STUBBED
    assert "sgl_kernel" not in stubs.ON_GPUS
    assert GPU.precision == BFLOAT16
    launch = tables.gpu_command_line("m", "folder", ["--tp-size", "2"])
    assert {"--device=cuda", "--dtype=bfloat16", "--attention-backend=triton"} <= set(launch)
    assert not {"--device=cpu", "--dtype=float32"} & set(launch)
    assert not {"TRITON_INTERPRET", "CUDA_VISIBLE_DEVICES", "SGLANG_USE_CPU_ENGINE"} & set(
        GPU.variables
    )


@pytest.mark.engine
@pytest.mark.ranks
@pytest.mark.timeout(900)
def test_its_processes_judge_as_those_of_cpu_ranks_do(tmp_path, monkeypatch):
    if PYTHON is None:
        pytest.skip("SERVE_PYTHON is not set")
    here = {"PYTHONPATH": str(SAMPLES), "PRETENDED_GPUS": "2"}
    cuda = replace(
        GPU,
        drive="gpu_on_cpu",
        variables={**ENGINE.variables, **here},
        command_line=ENGINE.command_line,
        precision=FLOAT32,
    )
    others = [each for each in engines() if each.name != ENGINE.name]
    whole = replace(ENGINE, devices={"cuda": cuda})
    monkeypatch.setattr(sweep, "engines", lambda: (whole, *others))
    found = cases(tmp_path, PYTHON, release="0.5.10.post1", layouts=["tp2", "tp2.dp2.ep2"])
    assert found == {"tp2": "exact", "tp2.dp2.ep2": "diverged"}


@pytest.mark.engine
@pytest.mark.ranks
@pytest.mark.timeout(900)
def test_on_gpus_the_fused_norm_s_sum_is_seen(tmp_path):
    if GPU_PYTHON is None:
        pytest.skip("SERVE_GPU_PYTHON is not set")
    found = cases(tmp_path, GPU_PYTHON, release="0.5.17", layouts=["tp2"])
    assert found == {"tp2": "exact"}


def cases(tmp_path, python, *, release, layouts):
    """Outcome by layout of qwen3_moe under `--device cuda`."""
    output = tmp_path / "report.json"
    words = [f"sglang=={release}", "--python", python, "--device", "cuda", "--model", "qwen3_moe"]
    for layout in layouts:
        words += ["--layout", layout]
    command_line.main(["serve", *words, "--format", "json", "--output", str(output)])
    report = json.loads(output.read_text(encoding="utf-8"))
    return {case["layout"]: case["outcome"] for case in report["cases"]}
