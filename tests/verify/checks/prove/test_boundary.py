"""Releases in which the boundary of a stage sums, and no block decides about it."""

import shutil

import pytest

from helper import MoeConfig
from verify.checks.prove.lattice import prove
from verify.checks.prove.source import read
from verify.engines.sources import open_source

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


TOLD = """

def should_skip_mlp_all_reduce():
    forward = get_forward()
    return forward.fuse_mlp_allreduce or forward.mlp_reduce_scatter


def reduce_moe_output(hidden_states):
    complete = should_use_flashinfer_cutlass_moe_fp4_allgather()
    if get_parallel().tp_size > 1 and not should_skip_mlp_all_reduce() and not complete:
        return tensor_model_parallel_all_reduce(hidden_states)
    return hidden_states


def post_experts_all_reduce(hidden_states):
    left = should_skip_mlp_all_reduce() or should_use_flashinfer_cutlass_moe_fp4_allgather()
    if get_parallel().moe_ep_size > 1 and not left:
        hidden_states = moe_expert_parallel_all_reduce(hidden_states)
    if get_parallel().moe_tp_size > 1 and not left:
        hidden_states = moe_tensor_model_parallel_all_reduce(hidden_states)
    return hidden_states
"""
TELLS = """
from sglang.srt.layers.dp_attention import is_enable_moe_cp_allgather


class OutputBoundary:
    def ffn(self, batch, steps):
        step = self._postprocess_dp_step(batch, steps)
        scatters = self._ffn_leaves_sum_to_reduce_scatter(steps, step)
        fuses = self._ffn_sum_moves_to_next_layer(
            batch, steps, mlp_reduce_scatter=scatters, dp_step=step
        )
        return get_forward().scoped(fuse_mlp_allreduce=fuses, mlp_reduce_scatter=scatters)

    def _postprocess_dp_step(self, forward_batch, steps):
        if not steps.returns_over_dp:
            return None
        if should_use_dp_reduce_scatterv() and steps.output.leaves_for_reduce_scatterv:
            return varying
        if steps.output.leaves_for_reduce_scatter and forward_batch.dp_padding_mode.is_max_len():
            return equal
        return None

    def _ffn_leaves_sum_to_reduce_scatter(self, steps, dp_step):
        return dp_step is not None

    def _ffn_sum_moves_to_next_layer(self, batch, steps, *, mlp_reduce_scatter, dp_step):
        return (
            get_parallel().tp_size > 1
            and not self.plan.terminal
            and not is_enable_moe_cp_allgather()
            and steps.output.group is not None
            and post_experts_reduction_group() is get_parallel().tp_group
            and not mlp_reduce_scatter
        )
"""


ROWS = {0b0000, 0b0010, 0b0011, 0b0100, 0b0110, 0b1000, 0b1010}
OWN, CALLED = "self.experts(hidden_states)", "        hidden_states = self.mlp(hidden_states)\n"
SCOPE = """        with self.after.exit(batch) as ffn_exit:
            hidden_states = self.mlp(hidden_states)
        return ffn_exit.finish(hidden_states)
"""


def told(elm, *, by="post_experts_all_reduce", tells=TELLS, helpers=TOLD):
    start, _, _ = ELM.partition(CALLED)
    model = start.replace(OWN, f"{by}({OWN})") + SCOPE
    imported = f"from sglang.srt.layers.moe.utils import {by}\n"
    return elm(model=imported + model, exits=tells, picks=PICKS + helpers)


@pytest.mark.parametrize("by", ["reduce_moe_output", "post_experts_all_reduce"])
def test_what_a_boundary_tells_its_blocks_to_leave_is_counted_once(elm, by):
    sourced = told(elm, by=by)
    assert [subject.name for subject in sourced.subjects] == ["elm/ElmBlock.forward"]
    assert sourced.left_out == ()
    # where there are several copies of the experts it is another sum that has to be made
    copies = {("double", "routed", "nothing"), ("mixed", "routed", "nothing")}
    assert faults(sourced) == (copies if by == "reduce_moe_output" else set())
    tally = prove(sourced.subjects, max_world_size=4, release=sourced.release)
    assert {row for (_, row), kinds in tally.kinds.items() if kinds["exact"]} == ROWS


@pytest.mark.parametrize(
    ("part", "old", "new", "fault"),
    [
        ("helpers", "forward.fuse_mlp_allreduce or ", "", ("double", "routed", "boundary")),
        (
            "helpers",
            " or forward.mlp_reduce_scatter",
            "",
            ("double", "routed", "dp_reduce_scatter"),
        ),
        ("tells", "return dp_step is not None", "return True", ("missing", "routed", "dp_scatter")),
        ("tells", "and not self.plan.terminal", "", ("missing", "routed", "final norm")),
        ("tells", "and not is_enable_moe_cp_allgather()", "", ("crash", "routed", "boundary")),
    ],
)
def test_a_boundary_or_a_block_that_forgets_the_other_is_found(elm, part, old, new, fault):
    texts = {"helpers": TOLD, "tells": TELLS}
    assert texts[part].count(old) == 1
    texts[part] = texts[part].replace(old, new)
    assert fault in faults(told(elm, **texts))
