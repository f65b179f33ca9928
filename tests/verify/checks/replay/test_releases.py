"""What is publicly known about releases, seen by executing them."""

from dataclasses import replace

import pytest

from helper import MoeConfig
from verify.checks.prove import source as ledger_source
from verify.checks.replay.decoders import Models
from verify.checks.replay.deployments import Execution, executable
from verify.checks.replay.offered import offered
from verify.checks.replay.processes import Case, Child
from verify.emulator.tree import SourceFiles
from verify.emulator.witness import HIDDEN_SIZE
from verify.engines.ledger import LayerTraits
from verify.engines.sources import fetch, ledger, open_source
from verify.logic.flags import flag_names
from verify.logic.truth import row_bits
from verify.parallel.guards import Guards

pytestmark = [pytest.mark.network, pytest.mark.slow]

DP_EP = Execution(config=MoeConfig(tp_size=4, ep_size=4, attn_dp_size=4, enable_dp_attention=True))
SCATTER = Execution(
    config=MoeConfig(tp_size=4, ep_size=2, attn_dp_size=4, enable_dp_attention=True)
)
SCATTER_TP = Execution(config=MoeConfig(tp_size=4, attn_dp_size=4, enable_dp_attention=True))
DENSE_WHOLE = replace(DP_EP, dense_fully_dp=True)
MORI = Execution(config=MoeConfig(tp_size=2, ep_size=2), all_to_all="mori")
FUSED_EXCHANGE = replace(MORI, all_to_all="ascend_fuseep")
EXCHANGE = Execution(config=DP_EP.config, all_to_all="mooncake")
FETCHED = Execution(config=DP_EP.config, dwdp=True, dense_fully_dp=True)
STAGES = Execution(config=MoeConfig(tp_size=2), stages=2, fusion="flashinfer")
HYBRID_FUSED = Execution(config=MoeConfig(tp_size=4, ep_size=2), fusion="flashinfer")


ALL_HEARD = LayerTraits.of(
    Guards(producer="two-site", skip_tp=0, accepts=frozenset(flag_names()), shared_experts="none")
)


@pytest.mark.parametrize("ranks", range(1, 9))
@pytest.mark.parametrize(
    "version", ["0.5.3", "0.5.10.post1", "0.5.11", "0.5.17", "0.5.20", "0.5.23"]
)
def test_the_flags_that_prove_reads_are_those_that_the_release_publishes(version, ranks):
    """All four: two are the server's functions, two are asked of the executed layer."""
    location = str(fetch(f"sglang=={version}"))
    with open_source(location, below="") as tree:
        files = SourceFiles(tree)
        decoder = next(Models(files).decoders("qwen3_moe"))
        asked = offered(tuple(executable(ranks)), files, source=version)
    with open_source(location) as tree:
        release = ledger_source.read(tree).release
    answers = 0
    with Child(location) as child:
        for deployment in asked:
            out = child.run(Case(decoder=decoder, deployment=deployment))
            row = ledger().plan(deployment, ALL_HEARD, release).row
            read = dict(zip(flag_names(), map(int, row_bits(row, len(flag_names()))), strict=True))
            told = out["published"]
            assert told == {flag: read[flag] for flag in told}, (deployment.as_json(), out["why"])
            assert len(told) == len(read) or out["kind"] == "cannot run", deployment.as_json()
            answers += len(told) == len(read)
    # no layer can be built on a number of ranks that its tensors cannot be cut by
    assert answers or HIDDEN_SIZE % ranks


def execute(version, model, deployment):
    location = str(fetch(f"sglang=={version}"))
    with open_source(location, below="") as tree:
        decoder = next(Models(SourceFiles(tree)).decoders(model))
    with Child(location) as child:
        return child.run(Case(decoder=decoder, deployment=deployment))


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
        # sgl-project/sglang#34887: the block sums up what the backend's combine has
        ("0.5.17", "qwen3_moe", MORI, "mixed", 2),
        ("0.5.18", "qwen3_moe", MORI, "exact", 1),
        ("0.5.23", "hunyuan_v3", MORI, "double", 2),
        # sgl-project/sglang#40735: the same; then its shared experts are summed by nobody
        ("0.5.20", "minimax_m3", FUSED_EXCHANGE, "mixed", 1),
        ("0.5.23", "minimax_m3", FUSED_EXCHANGE, "missing", 1),
        ("0.5.20", "deepseek_v2", FUSED_EXCHANGE, "exact", 1),
        # the sum that a pipeline stage ends with is lost
        ("0.5.20", "deepseek_v2", STAGES, "missing", 1),
        ("0.5.21", "deepseek_v2", STAGES, "exact", 1),
        # what docs/findings says of the newest release, and of one before
        ("0.5.20", "llama4", DENSE_WHOLE, "mixed", 1),
        ("0.5.23", "llama4", DENSE_WHOLE, "missing", 1),
        ("0.5.23", "qwen2_moe", EXCHANGE, "missing", 1),
        ("0.5.23", "deepseek_v2", EXCHANGE, "exact", 1),
        ("0.5.23", "deepseek_v2", FETCHED, "missing", 1),
        # a draft whose boundary reads the draft's pattern of layers
        ("0.5.23", "nemotron_h_mtp", FETCHED, "missing", 1),
    ],
)
def test_known_defects_show_in_the_releases_that_have_them(version, model, deployment, kind, count):
    result = execute(version, model, deployment)
    assert result["kind"] == kind, result["why"]
    assert max(max(row) for row in result["counts"]) == count
    assert not any("RowParallelLinear.forward" in name for name in result["replaced"])
