"""The real releases: #23734 and its repair. SERVE_PYTHON names a Python with the packages.

SERVE_RELEASES, where it is set, is a folder with the releases unpacked, each named by its version.
"""

import json
import os
from pathlib import Path

import pytest

from verify.cli import command_line

pytestmark = [pytest.mark.engine, pytest.mark.ranks, pytest.mark.timeout(600)]

PYTHON = os.environ.get("SERVE_PYTHON")
RELEASES = os.environ.get("SERVE_RELEASES")
SAMPLES = Path(__file__).parent / "samples"


def source(release):
    return str(Path(RELEASES, release)) if RELEASES else f"sglang=={release}"


def served(tmp_path, release, *words, model="qwen3_moe"):
    if PYTHON is None:
        pytest.skip("SERVE_PYTHON is not set")
    output = tmp_path / "report.json"
    command = ["serve", source(release), "--python", PYTHON, "--model", model, *words]
    code = command_line.main([*command, "--format", "json", "--output", str(output)])
    return code, json.loads(output.read_text())["cases"]


def test_23734_is_seen_in_decode_only(tmp_path):
    code, (case,) = served(tmp_path, "0.5.10.post1", "--layout", "tp2.dp2.ep2")
    assert (code, case["outcome"]) == (1, "diverged")
    wrong = {step for step, nats in case["steps"].items() if nats > case["tolerance"]}
    assert wrong == {"decode 1", "decode 2", "decode 3"}
    assert case["module"] == "model.layers.0"
    assert case["accused"]["step"] == "decode 1"
    assert case["accused"]["what"] == "2x of model.layers.0.mlp"


def test_23734_repaired_in_memory_is_exact(tmp_path):
    patch = SAMPLES / "sum_left_to_scatter.py"
    words = ("--layout", "tp2.dp2.ep2", "--patch", str(patch))
    code, (case,) = served(tmp_path, "0.5.10.post1", *words)
    assert (code, case["outcome"]) == (0, "exact")
    # what one rank says is the release's own
    assert case["patch_moves"] == 0


def test_a_sum_that_a_norm_hides_is_seen_in_a_modules_value(tmp_path):
    code, (case,) = served(tmp_path, "0.5.23", "--layout", "tp2", model="afmoe")
    assert (code, case["outcome"]) == (0, "exact")
    seen = {row["where"].split()[0]: row for row in case["corruptions"] if row["how"] == "doubled"}
    hidden = {place: row["module"] for place, row in seen.items() if row["seen"] == "in-module"}
    assert {place.split(":")[0] for place in hidden} == {
        "srt/layers/linear.py",
        "srt/models/afmoe.py",
    }
    assert all(hidden.values())


DOUBLED_BEFORE_A_NORM = """
import sglang.srt.models.afmoe as m
forward = m.AfmoeMoE.forward
m.AfmoeMoE.forward = lambda self, *a, **k: (2 if self.tp_size > 1 else 1) * forward(self, *a, **k)
"""


def test_a_wrong_sum_that_a_norm_hides_is_no_pass(tmp_path):
    if PYTHON is None:
        pytest.skip("SERVE_PYTHON is not set")
    patch, results = tmp_path / "wrong.py", tmp_path / "results.jsonl"
    patch.write_text(DOUBLED_BEFORE_A_NORM)
    words = ("--python", PYTHON, "--model", "afmoe", "--layout", "tp2", "--patch", str(patch))
    assert command_line.main(["serve", source("0.5.23"), *words, "--results", str(results)]) == 2
    (row,) = map(json.loads, results.read_text().splitlines())
    assert (row["outcome"], row["patch_moves"]) == ("ill-conditioned", 0)
    assert row["dlogprob"] < row["tolerance"]
    # without num_dense_layers (configs/afmoe.py:36) every layer is a mixture
    assert row["module"] == "model.layers.0.mlp"


def test_every_corruption_of_a_plain_case_is_seen(tmp_path):
    words = ("--layout", "tp2", "--corruptions", "--seed", "0", "--seed", "1")
    code, cases = served(tmp_path, "0.5.23", *words)
    assert (code, [case["outcome"] for case in cases]) == (0, ["exact", "exact"])
    for case in cases:
        assert {row["seen"] for row in case["corruptions"]} == {"diverged"}
        assert {row["how"] for row in case["corruptions"]} == {"doubled", "dropped", "zero"}
        assert len({row["where"] for row in case["corruptions"]}) >= 8


def test_23734_is_gone_in_0_5_11(tmp_path):
    code, (case,) = served(tmp_path, "0.5.11", "--layout", "tp2.dp2.ep2")
    assert (code, case["outcome"]) == (0, "exact")


# several kernels of these are interpreted
SLOW = pytest.mark.timeout(1200)


@pytest.mark.parametrize(
    "fault",
    [
        ("0.5.23", "mellum", "tp2.dense1", "diverged", "dense_whole"),
        ("0.5.23", "qwen2_moe", "tp2.cp2.moe_dp2", "diverged", "shared_over_a_copy"),
        pytest.param(
            ("0.5.23", "longcat_flash", "tp2", "diverged", "zero_experts_once"), marks=SLOW
        ),
        ("0.5.23", "olmoe", "tp2", "cannot-run", "olmoe_norm_of_all_heads"),
        ("0.5.23", "sdar_moe", "tp2.dp2", "cannot-run", "sdar_over_attention_ranks"),
        ("0.5.20", "step3p5", "tp2.dp2", "diverged", "dense_sum_once"),
        ("0.5.20", "SarvamMLAForCausalLM", "tp2.dp2", "diverged", "dense_sum_once"),
        pytest.param(
            ("0.5.19", "gpt_oss", "tp2.dp2.ep2", "diverged", "gpt_oss_asks_who_sums"), marks=SLOW
        ),
        ("0.5.11", "glm4_moe", "tp2.dp2.ep2", "diverged", "dense_sum_left_to_scatter"),
        ("0.5.23", "hunyuan", "tp2.cp2.moe_dp2", "diverged", "hunyuan_over_a_copy"),
    ],
)
def test_known_faults_are_seen_and_exact_once_repaired(tmp_path, fault):
    release, model, layout, said, repair = fault
    if PYTHON is None:
        pytest.skip("SERVE_PYTHON is not set")
    results = tmp_path / "results.jsonl"
    words = ["--python", PYTHON, "--model", model, "--layout", layout, "--results", str(results)]
    for patch in ([], ["--patch", str(SAMPLES / f"{repair}.py")]):
        command_line.main(["serve", source(release), *words, *patch])
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert [row["outcome"] for row in rows] == [said, "exact"]
    # on one rank it is the release's own model
    assert rows[1]["patch_moves"] == 0


def test_a_model_without_shared_experts_keeps_to_one_rank_under_moe_dp(tmp_path):
    code, (case,) = served(tmp_path, "0.5.23", "--layout", "tp2.cp2.moe_dp2")
    assert (code, case["outcome"]) == (0, "exact")
