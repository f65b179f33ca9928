"""The ledger's verdict equals what the release's own layers do when they are executed."""

import json

import pytest

from helper import MoeConfig
from verify.checks.prove.judge import judge
from verify.checks.prove.source import read
from verify.cli.command_line import main
from verify.engines.sources import open_source
from verify.parallel.deployment import Deployment

SIZES = {
    "tp_size": "tp_size",
    "ep_size": "ep_size",
    "moe_dp_size": "moe_dp_size",
    "dp_size": "attn_dp_size",
    "attn_cp_size": "attn_cp_size",
    "moe_runner_backend": "moe_runner_backend",
    "quantization": "quantization",
}


def deployment_of(written: dict[str, object]) -> Deployment:
    config = {SIZES[name]: value for name, value in written.items() if name in SIZES}
    layer = {name: value for name, value in written.items() if name not in SIZES}
    enabled = config.get("attn_dp_size", 1) > 1
    return Deployment(config=MoeConfig(enable_dp_attention=enabled, **config), **layer)


@pytest.mark.network
@pytest.mark.slow
def test_a_model_of_0_5_11_executed_on_four_ranks(capsys):
    """qwen3_moe: two reductions, no shared experts, no dense layers: every layer is the block."""
    main(["replay", "sglang==0.5.11", "--model", "qwen3_moe", "--format", "json", "-q"])
    cases = json.loads(capsys.readouterr().out)["cases"]
    with open_source("sglang==0.5.11") as tree:
        sourced = read(tree)
    guards = next(s.guards for s in sourced.subjects if s.name.startswith("qwen3_moe/"))
    kinds = set()
    for case in cases:
        verdict = judge(deployment_of(case["deployment"]), guards, release=sourced.release)
        assert (verdict.kind == "exact") == (case["kind"] == "exact"), case["deployment"]
        if verdict.kind in ("missing", "crash"):
            assert verdict.kind == case["kind"], case["deployment"]
        kinds.add(verdict.kind)
    assert len(cases) > 50
    assert {"exact", "missing", "crash", "mixed"} <= kinds
