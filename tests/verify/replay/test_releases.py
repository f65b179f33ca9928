"""What is publicly known about releases, seen by executing them."""

import pytest

from helper import MoeConfig
from verify.fetch import fetch
from verify.ledger.deployment import Deployment
from verify.replay.decoders import Models
from verify.replay.processes import Case, Child
from verify.replay.tree import SourceFiles
from verify.source import open_source

pytestmark = [pytest.mark.network, pytest.mark.slow]

DP_EP = Deployment(config=MoeConfig(tp_size=4, ep_size=4, attn_dp_size=4, enable_dp_attention=True))
SCATTER = Deployment(
    config=MoeConfig(tp_size=4, ep_size=2, attn_dp_size=4, enable_dp_attention=True)
)
SCATTER_TP = Deployment(config=MoeConfig(tp_size=4, attn_dp_size=4, enable_dp_attention=True))
HYBRID_FUSED = Deployment(config=MoeConfig(tp_size=4, ep_size=2), fusion="flashinfer")


def execute(version, model, deployment):
    location = str(fetch(f"sglang=={version}"))
    with open_source(location, below="") as tree:
        decoder = next(Models(SourceFiles(tree)).decoders(model))
    with Child(location) as child:
        return child.run(Case(decoder=decoder, index=0, deployment=deployment))


@pytest.mark.parametrize(
    ("version", "model", "deployment", "kind", "count"),
    [
        # sgl-project/sglang#37199: four ranks, four times
        ("0.5.11", "gpt_oss", DP_EP, "double", 4),
        ("0.5.19", "gpt_oss", DP_EP, "double", 4),
        ("0.5.20", "gpt_oss", DP_EP, "exact", 1),
        ("0.5.23", "gpt_oss", DP_EP, "exact", 1),
        # sgl-project/sglang#11665: the block is never told that a reduce-scatter follows
        ("0.5.3.post3", "glm4_moe", SCATTER_TP, "double", 4),
        ("0.5.4", "glm4_moe", SCATTER_TP, "exact", 1),
        # sgl-project/sglang#23734: the EP all-reduce ignores the reduce-scatter
        ("0.5.10.post1", "qwen3_moe", SCATTER, "double", 2),
        ("0.5.11", "qwen3_moe", SCATTER, "exact", 1),
        # sgl-project/sglang#32963: the fused kernel covers one of two groups
        ("0.5.11", "gpt_oss", HYBRID_FUSED, "missing", 1),
        ("0.5.18", "gpt_oss", HYBRID_FUSED, "exact", 1),
    ],
)
def test_known_defects_show_in_the_releases_that_have_them(version, model, deployment, kind, count):
    result = execute(version, model, deployment)
    assert result["kind"] == kind, result["why"]
    assert max(max(row) for row in result["counts"]) == count
    assert not any("RowParallelLinear.forward" in name for name in result["replaced"])
