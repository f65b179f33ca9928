"""Releases whose blocks and layers ask helper's plan: exact where their own guards were not, too.

0.5.10.post1 has open-coded guards, 0.5.11 the pull request's predicate, whose place the plan takes.
0.5.17's fused norm sums over one of two groups (#32963): here with its kernel's arithmetic.

SERVE_PYTHON names a Python with the packages.
"""

import json
import os
from pathlib import Path

import pytest

import helper
from verify.cli import command_line

pytestmark = [pytest.mark.engine, pytest.mark.ranks, pytest.mark.timeout(900)]

OPEN_CODED, PREDICATE, FUSING = "0.5.10.post1", "0.5.11", "0.5.17"
DIVERGES = "tp2.dp2.ep2"
LAYOUTS = ("tp2", "tp4", "tp2.ep2", "tp2.dp2", DIVERGES)
PYTHON = os.environ.get("SERVE_PYTHON")
SAMPLES = Path(__file__).parent / "samples"
FOLLOW = (SAMPLES / "follow_plan.py").read_text(encoding="utf-8")
FUSED = (SAMPLES / "fused_norm_on_cpu.py").read_text(encoding="utf-8")
FIND_HELPER = f"import sys; sys.path.insert(0, {str(Path(helper.__file__).parents[1])!r})\n"


def served(tmp_path, release, model, *, layouts, patch=None):
    """Outcome by layout."""
    if PYTHON is None:
        pytest.skip("SERVE_PYTHON is not set")
    output = tmp_path / "report.json"
    words = [f"sglang=={release}", "--python", PYTHON, "--model", model]
    for layout in layouts:
        words += ["--layout", layout]
    if patch is not None:
        file = tmp_path / "patch.py"
        file.write_text(FIND_HELPER + patch, encoding="utf-8")
        words += ["--patch", str(file)]
    command_line.main(["serve", *words, "--format", "json", "--output", str(output)])
    cases = json.loads(output.read_text(encoding="utf-8"))["cases"]
    return {case["layout"]: case["outcome"] for case in cases}


@pytest.mark.parametrize("release", [OPEN_CODED, PREDICATE, FUSING])
@pytest.mark.parametrize("model", ["qwen3_moe", "glm4_moe"])
def test_layers_that_follow_the_plan_are_exact(tmp_path, release, model):
    found = served(tmp_path, release, model, layouts=LAYOUTS, patch=FOLLOW)
    assert found == dict.fromkeys(LAYOUTS, "exact")


def test_open_coded_guards_diverge_in_one_of_them(tmp_path):
    found = served(tmp_path, OPEN_CODED, "qwen3_moe", layouts=LAYOUTS)
    assert found == {**dict.fromkeys(LAYOUTS, "exact"), DIVERGES: "diverged"}


def test_a_predicate_that_a_dense_mlp_does_not_ask_diverges(tmp_path):
    """0.5.11's communicator sums by reduce_scatterv; GLM-4-MoE's dense layers summed before."""
    found = served(tmp_path, PREDICATE, "glm4_moe", layouts=[DIVERGES])
    assert found == {DIVERGES: "diverged"}


@pytest.mark.parametrize("model", ["qwen3_moe", "glm4_moe"])
@pytest.mark.parametrize(("layout", "wrong"), [("tp2", "none"), ("tp2.ep2", "moe_tp")])
def test_a_plan_that_sums_over_another_group_diverges(tmp_path, model, layout, wrong):
    """The engine does what it is told: nothing of its own guards is left."""
    patch = FOLLOW.replace("SUMS[self.communicator.plan.block_sum]", f"SUMS[{wrong!r}]")
    assert patch != FOLLOW
    found = served(tmp_path, OPEN_CODED, model, layouts=[layout], patch=patch)
    assert found == {layout: "diverged"}


@pytest.mark.parametrize("model", ["qwen3_moe", "glm4_moe"])
def test_a_plan_in_the_predicate_s_place_is_obeyed(tmp_path, model):
    patch = FOLLOW.replace('LATEST["plan"].block_sum', '"none"')
    assert patch != FOLLOW
    found = served(tmp_path, PREDICATE, model, layouts=["tp2"], patch=patch)
    assert found == {"tp2": "diverged"}


@pytest.mark.parametrize("model", ["qwen3_moe", "glm4_moe"])
def test_a_fused_norm_over_one_of_two_groups_diverges_and_the_plan_s_is_exact(tmp_path, model):
    layouts = ["tp4", "tp4.ep2"]
    released = served(tmp_path, FUSING, model, layouts=layouts, patch=FUSED)
    assert released == {"tp4": "exact", "tp4.ep2": "diverged"}
    planned = served(tmp_path, FUSING, model, layouts=layouts, patch=FUSED + FOLLOW)
    assert planned == dict.fromkeys(layouts, "exact")


def test_a_fused_norm_that_does_not_read_the_plan_diverges(tmp_path):
    patch = FUSED + FOLLOW.replace('.consumer.over == "tp"', '.consumer.over == "ep"')
    assert patch != FUSED + FOLLOW
    found = served(tmp_path, FUSING, "qwen3_moe", layouts=["tp4.ep2"], patch=patch)
    assert found == {"tp4.ep2": "diverged"}
