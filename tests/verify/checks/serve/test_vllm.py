"""vLLM 0.32.0's CPU build, whole: #49122 and its repair. VLLM_PYTHON names a Python that has it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from verify.cli import command_line

pytestmark = [pytest.mark.engine, pytest.mark.ranks, pytest.mark.timeout(600)]

PYTHON = os.environ.get("VLLM_PYTHON")
SAMPLES = Path(__file__).parent / "samples"
REPAIRED = SAMPLES / "aria_repaired.py"
WHERE = "import sysconfig; print(sysconfig.get_path('purelib'))"
ROTATED = """
import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding
with set_current_vllm_config(VllmConfig()):
    rotary = RotaryEmbedding(32, 32, 128, 10000, True, torch.float32)
    query, key = torch.randn(5, 4, 32), torch.randn(5, 32)
    for shape in ((5, 128), (5, 4, 32)):
        given = [(query.clone().view(shape), key.clone()) for _ in range(2)]
        right, _ = rotary.forward_native(torch.arange(5), *given[0])
        found, _ = rotary.forward_cpu(torch.arange(5), *given[1])
        print(torch.allclose(right, found, atol=1e-5), end=" ")
"""


def said(code):
    if PYTHON is None:
        pytest.skip("VLLM_PYTHON is not set")
    command = [PYTHON, "-c", code]
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR"}
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=240, check=True, env=environment
    )
    return ran.stdout.splitlines()[-1]


def served(tmp_path, *words):
    output = tmp_path / "report.json"
    command = ["serve", said(WHERE), "--python", PYTHON, "--format", "json"]
    code = command_line.main([*command, "--output", str(output), *words])
    return code, json.loads(output.read_text())["cases"] if code < 2 else []


def test_a_right_model_is_exact_and_each_collective_counts(tmp_path):
    words = ("--model", "mixtral", "--layout", "tp2", "--layout", "dp2.ep2")
    code, cases = served(tmp_path, *words)
    assert (code, [case["outcome"] for case in cases]) == (0, ["exact", "exact"])
    for case in cases:
        assert case["dlogprob"] < case["tolerance"]
        assert {row["seen"] for row in case["corruptions"]} == {"diverged"}
    functions = {row["where"].split()[-3] for case in cases for row in case["corruptions"]}
    assert {"all_reduce", "all_gather", "all_gatherv", "reduce_scatterv"} <= functions


def test_pipeline_stages_are_exact_and_what_one_hands_on_counts(tmp_path):
    words = ("--model", "qwen3_moe", "--layout", "pp2", "--layout", "tp2.pp2")
    code, cases = served(tmp_path, *words)
    assert (code, [case["outcome"] for case in cases]) == (0, ["exact", "exact"])
    for case in cases:
        assert {row["seen"] for row in case["corruptions"]} == {"diverged"}
        assert any("isend_tensor_dict" in row["where"] for row in case["corruptions"])


def test_a_sum_over_other_ranks_of_the_launch_is_seen(tmp_path):
    words = ("--model", "qwen3_moe", "--layout", "tp2.dp2.ep4", "--corruptions")
    code, (case,) = served(tmp_path, *words)
    assert (code, case["outcome"]) == (0, "exact")
    over = [row for row in case["corruptions"] if row["how"].startswith("over ")]
    assert {"over dp:0", "over ep:0"} <= {row["how"] for row in over}
    assert {row["seen"] for row in over} <= {"diverged", "sizes-differ"}


def test_49122_diverges_and_its_module_is_named(tmp_path):
    code, (case,) = served(tmp_path, "--model", "aria", "--layout", "tp2")
    assert (code, case["outcome"]) == (1, "diverged")
    assert case["dlogprob"] > 1
    assert case["module"] == "language_model.layers.0.mlp.experts"


def test_49122_repaired_in_memory_is_exact(tmp_path):
    words = ("--model", "aria", "--layout", "tp2", "--patch", str(REPAIRED))
    code, (case,) = served(tmp_path, *words)
    assert (code, case["outcome"]) == (0, "exact")


@pytest.mark.parametrize(
    ("model", "module", "repair"),
    [
        ("k2_horizon", "model.layers.0.mlp.shared_experts", "shared_whole.py"),
        ("dots1", "model.layers.1.mlp.experts._shared_experts", "shared_gathered.py"),
    ],
)
def test_shared_experts_in_slices_diverge_where_ranks_have_tokens_of_their_own(
    tmp_path, model, module, repair
):
    words = ("--model", model, "--layout", "tp2.dp2.ep4")
    code, (case,) = served(tmp_path, *words)
    assert (code, case["outcome"]) == (1, "diverged")
    assert case["module"].startswith(module)
    code, (case,) = served(tmp_path, *words, "--patch", str(SAMPLES / repair))
    assert (code, case["outcome"]) == (0, "exact")


def test_a_later_stage_of_gemma4_drops_the_layers_inputs_that_it_is_handed(tmp_path):
    words = ("--model", "gemma4_layer_inputs", "--layout", "pp2")
    code, (case,) = served(tmp_path, *words)
    assert (code, case["outcome"]) == (1, "diverged")
    assert case["dlogprob"] > 1
    code, (case,) = served(tmp_path, *words, "--patch", str(SAMPLES / "gemma4_layer_inputs.py"))
    assert (code, case["outcome"]) == (0, "exact")


def test_a_stage_of_granites_hybrid_runs_layers_that_it_does_not_have(tmp_path, capsys):
    words = ("--model", "granitemoehybrid", "--layout", "pp2")
    assert served(tmp_path, *words)[0] == 2
    assert "too many values to unpack" in capsys.readouterr().err
    code, (case,) = served(tmp_path, *words, "--patch", str(SAMPLES / "granite_stages.py"))
    assert (code, case["outcome"]) == (0, "exact")


def test_a_launch_that_the_server_refuses_is_its_own_words(tmp_path, capsys):
    words = ("--model", "mixtral", "--layout", "tp2", "--", "--max-model-len=100000")
    assert served(tmp_path, *words)[0] == 2
    assert "User-specified max_model_len" in capsys.readouterr().err


def test_the_cpu_kernel_that_is_replaced_is_wrong_for_heads_of_their_own():
    assert said(ROTATED).split() == ["True", "False"]
