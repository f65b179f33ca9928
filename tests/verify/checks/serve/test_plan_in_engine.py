"""A release whose blocks and layers ask helper's plan: exact where its own guards were not, too.

SERVE_PYTHON names a Python with the packages.
"""

import json
import os
from pathlib import Path

import pytest

import helper
from verify import _cli

pytestmark = [pytest.mark.engine, pytest.mark.ranks, pytest.mark.timeout(900)]

RELEASE = "0.5.10.post1"
DIVERGES = "tp2.dp2.ep2"
LAYOUTS = ("tp2", "tp4", "tp2.ep2", "tp4.ep2", DIVERGES)
PYTHON = os.environ.get("SERVE_PYTHON")
FOLLOW = (Path(__file__).parent / "samples" / "follow_plan.py").read_text(encoding="utf-8")
FIND_HELPER = f"import sys; sys.path.insert(0, {str(Path(helper.__file__).parents[1])!r})\n"


def served(tmp_path, *models, layouts, patch=None):
    """Outcome by model and layout."""
    if PYTHON is None:
        pytest.skip("SERVE_PYTHON is not set")
    output = tmp_path / "report.json"
    words = [f"sglang=={RELEASE}", "--python", PYTHON, "--format", "json", "--output", str(output)]
    for model in models:
        words += ["--model", model]
    for layout in layouts:
        words += ["--layout", layout]
    if patch is not None:
        file = tmp_path / "patch.py"
        file.write_text(FIND_HELPER + patch, encoding="utf-8")
        words += ["--patch", str(file)]
    _cli.main(["serve", *words])
    cases = json.loads(output.read_text(encoding="utf-8"))["cases"]
    return {(case["model"], case["layout"]): case["outcome"] for case in cases}


@pytest.mark.parametrize("model", ["qwen3_moe", "glm4_moe"])
def test_layers_that_follow_the_plan_are_exact(tmp_path, model):
    found = served(tmp_path, model, layouts=LAYOUTS, patch=FOLLOW)
    assert found == {(model, layout): "exact" for layout in LAYOUTS}


def test_the_release_s_own_guards_diverge_in_one_of_them(tmp_path):
    assert served(tmp_path, "qwen3_moe", layouts=LAYOUTS) == {
        ("qwen3_moe", layout): "diverged" if layout == DIVERGES else "exact" for layout in LAYOUTS
    }


@pytest.mark.parametrize("model", ["qwen3_moe", "glm4_moe"])
@pytest.mark.parametrize(("layout", "wrong"), [("tp2", "none"), ("tp2.ep2", "moe_tp")])
def test_a_plan_that_sums_over_another_group_diverges(tmp_path, model, layout, wrong):
    """The engine does what it is told: nothing of its own guards is left."""
    patch = FOLLOW.replace("SUMS[self.communicator.plan.block_sum]", f"SUMS[{wrong!r}]")
    assert patch != FOLLOW
    assert served(tmp_path, model, layouts=[layout], patch=patch) == {(model, layout): "diverged"}
