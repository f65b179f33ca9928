"""The real releases: #23734 and its repair. SERVE_PYTHON names a Python with the packages."""

import json
import os

import pytest

from verify import _cli

pytestmark = [pytest.mark.engine, pytest.mark.ranks, pytest.mark.timeout(600)]

REPAIR = """
import sglang.srt.models.qwen3_moe as q
F = q.Qwen3MoeSparseMoeBlock.forward_normal
def forward_normal(self, h, should_allreduce_fusion=False, use_reduce_scatter=False):
    return F(self, h, should_allreduce_fusion or use_reduce_scatter, use_reduce_scatter)
q.Qwen3MoeSparseMoeBlock.forward_normal = forward_normal
"""
PYTHON = os.environ.get("SERVE_PYTHON")


def served(tmp_path, release, *words):
    if PYTHON is None:
        pytest.skip("SERVE_PYTHON is not set")
    output = tmp_path / "report.json"
    command = ["serve", f"sglang=={release}", "--python", PYTHON, "--model", "qwen3_moe", *words]
    code = _cli.main([*command, "--format", "json", "--output", str(output)])
    return code, json.loads(output.read_text())["cases"]


def test_23734_is_seen_in_decode_only(tmp_path):
    code, (case,) = served(tmp_path, "0.5.10.post1", "--layout", "tp2.dp2.ep2")
    assert (code, case["outcome"]) == (1, "diverged")
    wrong = {step for step, nats in case["steps"].items() if nats > case["tolerance"]}
    assert wrong == {"decode 1", "decode 2", "decode 3"}


def test_23734_repaired_in_memory_is_exact(tmp_path):
    patch = tmp_path / "repair.py"
    patch.write_text(REPAIR)
    words = ("--layout", "tp2.dp2.ep2", "--patch", str(patch))
    code, (case,) = served(tmp_path, "0.5.10.post1", *words)
    assert (code, case["outcome"]) == (0, "exact")


def test_23734_is_gone_in_0_5_11(tmp_path):
    code, (case,) = served(tmp_path, "0.5.11", "--layout", "tp2.dp2.ep2")
    assert (code, case["outcome"]) == (0, "exact")
