"""Releases in which the boundary of a stage sums, and no block decides about it."""

import shutil

import pytest

from helper import MoeConfig
from verify.checks.prove.lattice import prove
from verify.checks.prove.source import read
from verify.engines.sources import open_source
from verify.errors import VerifyError

ELM = """
from sglang.srt.distributed import tensor_model_parallel_all_reduce
from sglang.srt.layers.layer_boundary import append_stages, declare_attn, declare_ffn
from sglang.srt.layers.layernorm import RMSNorm
from sglang.srt.layers.linear import RowParallelLinear
from sglang.srt.layers.moe.fused_moe import FusedMoE


class ElmShared:
    def __init__(self, config):
        self.down = RowParallelLinear(config.n, config.h, reduce_results=False)

    def forward(self, hidden_states):
        return self.down(hidden_states)[0]


class ElmBlock:
    def __init__(self, config):
        self.experts = FusedMoE(config, reduce_results=False)
        self.shared = ElmShared(config)

    def forward(self, hidden_states):
        return self.experts(hidden_states){shared}


class ElmDecoderLayer:
    def __init__(self, config):
        self.mlp = ElmBlock(config)
        self.norm = RMSNorm(config.h)
        self.before, self.after = append_stages(
            (declare_attn(), self.norm), (declare_ffn(sparse=True), self.norm)
        )

    def forward(self, positions, hidden_states, batch):
        hidden_states = self.after.prepare(hidden_states, batch)
        hidden_states = self.mlp(hidden_states)
        return self.after.finish(hidden_states, batch)
"""
SCATTERS = """
def should_use_flashinfer_cutlass_moe_fp4_allgather():
    return is_dp_attention_enabled() and fp4_is_gathered()


def should_use_dp_reduce_scatterv():
    return (
        is_dp_attention_enabled()
        and get_attention_dp_size() == get_moe_expert_parallel_world_size()
        and get_attention_dp_size() == get_tensor_model_parallel_world_size()
    )
"""
PICKS = """

def post_experts_reduction_group():
    parallel = get_parallel()
    if parallel.moe_ep_size > 1 and parallel.moe_tp_size > 1 and parallel.moe_dp_size == 1:
        return parallel.tp_group
    if parallel.moe_ep_size > 1:
        return parallel.moe_ep_group
    return parallel.moe_tp_group
"""
EXIT = """
def returned(rows):
    if should_use_dp_reduce_scatterv():
        return rows
    return None
"""


@pytest.fixture
def elm(tmp_path, mini_sglang, write_layers):
    """A source of one model; its boundary sums over the group that `picks` returns."""

    def make(*, picks=PICKS, shared="", exits=EXIT, model=ELM):
        shutil.rmtree(tmp_path / "sglang", ignore_errors=True)
        shutil.copytree(mini_sglang / "sglang", tmp_path / "sglang")
        srt = tmp_path / "sglang/srt"
        (srt / "layers/communicator.py").unlink()
        for name in ("oak", "cedar"):
            (srt / f"models/{name}.py").unlink()
        (srt / "models/elm.py").write_text(model.format(shared=shared))
        write_layers(srt)
        boundary = srt / "layers/layer_boundary"
        boundary.mkdir()
        (boundary / "exit.py").write_text(exits)
        (boundary / "factories.py").write_text("group = SumGroup.MOE_OUTPUT if sparse else TP\n")
        (srt / "layers/moe/utils.py").write_text(SCATTERS + picks)
        with open_source(str(tmp_path)) as tree:
            return read(tree)

    return make


def faults(sourced):
    tally = prove(sourced.subjects, max_world_size=4, release=sourced.release)
    assert tally.cases
    return {
        (fault.cause.kind, fault.cause.family, fault.cause.reader)
        for fault in tally.faults.values()
    }


def test_what_the_boundary_sums_is_counted_once(elm):
    sourced = elm()
    assert [subject.name for subject in sourced.subjects] == ["elm/ElmDecoderLayer"]
    assert sourced.left_out == ()
    groups = {
        sizes: sourced.release.boundary(MoeConfig(tp_size=4, **dict(sizes)))
        for sizes in (
            (),
            (("ep_size", 2),),
            (("ep_size", 4),),
            (("ep_size", 2), ("moe_dp_size", 2), ("attn_cp_size", 2)),
        )
    }
    assert list(groups.values()) == ["moe_tp", "tp", "ep", "ep"]
    assert faults(sourced) == set()


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ("        return parallel.tp_group\n", "        return parallel.moe_ep_group\n", "missing"),
        ("    return parallel.moe_tp_group\n", "    return parallel.tp_group\n", "double"),
    ],
)
def test_a_boundary_that_sums_over_another_group_is_found(elm, old, new, kind):
    assert old in PICKS
    found = faults(elm(picks=PICKS.replace(old, new)))
    assert (kind, "routed", "boundary") in found


def test_a_shared_expert_is_split_over_more_ranks_than_a_copy_has(elm):
    found = faults(elm(shared=" + self.shared(hidden_states)"))
    assert ("missing", "shared", "boundary") in found, "copies of the experts"
    assert ("missing", "shared", "nothing") in found, "an FP4 dispatcher completes the experts only"
    assert {family for _, family, _ in found} == {"shared"}


def test_a_layer_that_reduces_before_its_boundary_is_not_judged(elm):
    own = "self.mlp(hidden_states)"
    assert ELM.count(own) == 1
    sourced = elm(model=ELM.replace(own, f"tensor_model_parallel_all_reduce({own})"))
    assert sourced.subjects == ()
    assert "elm/ElmDecoderLayer: reduces before its boundary" in sourced.left_out


def test_a_boundary_that_tells_its_blocks_what_to_leave_is_refused(elm):
    published = "    with get_forward().scoped(fuse_mlp_allreduce=fuses):\n"
    assert "    if should" in EXIT
    exits = EXIT.replace("    if should", f"{published}        rows = 1\n    if should")
    with pytest.raises(VerifyError, match="tells its blocks what to leave"):
        elm(exits=exits)
