"""A sum must run over the group that its parts are split over, no more and no less."""

from collections.abc import Callable
from typing import Any

import pytest

from verify.report.report import SUMS_UP

Judge = Callable[..., Any]

COPIES = {"distributed/parallel_state.py": "def groups(moe_dp_size=1):\n    pass\n"}
PICKS = """

def can_merge_all_reduce():
    parallel = get_parallel()
    return parallel.moe_ep_size > 1 and parallel.moe_tp_size > 1 and parallel.moe_dp_size == 1


def post_experts_reduction_group():
    parallel = get_parallel()
    if can_merge_all_reduce():
        return parallel.tp_group
    if parallel.moe_ep_size > 1:
        return parallel.moe_ep_group
    return parallel.moe_tp_group
"""


def picking(change: Any, picks: str = PICKS) -> dict[str, str]:
    """A library whose stage boundary sums a sparse layer's output over a group of its own."""
    return {
        **COPIES,
        "layers/moe/utils.py": change.library["layers/moe/utils.py"] + picks,
        "layers/layer_boundary/factories.py": "group = SumGroup.MOE_OUTPUT if sparse else TP\n",
    }


def test_shared_expert_split_over_more_ranks_than_the_boundary_sums(
    judged: Judge, change: Any
) -> None:
    sound = (*change.stages, change.never_summed, change.added_once)
    result = judged(*sound, library=picking(change))
    assert result.rules == [("group-too-narrow", "0000")]
    (finding,) = result.findings
    assert (finding.cls, finding.method, finding.kind) == ("Block", "__init__", "lost")
    assert finding.takes == ("moe_dp_size > 1",)
    over_all = PICKS.replace(
        "    if parallel.moe_ep_size", "    return parallel.tp_group\n    if 0"
    )
    assert judged(*sound, library=picking(change, over_all)).rules == []
    whole = ("**(dict(tp_size=1) if alone else {})", "tp_size=1")
    assert ("group-too-narrow", "0000") not in judged(*sound, whole, library=picking(change)).rules


OPS = """def sum_output(hidden_states, group):
    if group is SumGroup.TP:
        return tensor_model_parallel_all_reduce(hidden_states)
    if group is SumGroup.MOE_OUTPUT:
        return sum_post_experts_output(hidden_states)
    raise ValueError(group)
"""


@pytest.mark.parametrize(
    ("ops", "line"),
    [
        (OPS, 5),
        ("\n\n" + OPS, 7),
        (OPS.replace("sum_post_experts_output", "other"), None),
        ("", None),
    ],
)
def test_the_line_with_which_the_boundary_sums_is_named(
    judged: Judge, change: Any, ops: str, line: int | None
) -> None:
    sound = (*change.stages, change.never_summed, change.added_once)
    library = {**picking(change), "layers/layer_boundary/ops.py": ops}
    result = judged(*sound, library=library)
    (narrow,) = [one for one in result.findings if one.rule == "group-too-narrow"]
    named = [(one.file, one.line) for one in narrow.related if one.what == SUMS_UP]
    assert named == ([("sglang/srt/layers/layer_boundary/ops.py", line)] if line else [])


BRINGS = """from functools import partial
from elsewhere import kernel
from sglang.srt.layers.layer_boundary.sums import SumImplementation


def own_sum(hidden_states, batch, *, group, shared=False):
    return kernel(hidden_states, group, shared)


"""
SUMS = "class SumImplementation:\n    def __init__(self, run, eligible=None):\n        pass\n"


def bringing(run: str) -> tuple[tuple[str, str], ...]:
    """A layer that brings its own sum, for sparse layers over another group than for dense ones."""
    return (
        ("from elsewhere import kernel\n", BRINGS),
        (
            "        self.norm = RMSNorm(config.h)\n",
            "        self.norm = RMSNorm(config.h)\n"
            "        group = get_parallel().tp_group if sparse else self.attn_group\n",
        ),
        ("declare_ffn(sparse=sparse)", f"declare_ffn(sparse=sparse, sum_impl={run})"),
    )


@pytest.mark.parametrize(
    ("run", "rule"),
    [
        # over every copy: the shared expert is whole, the routed experts count once for each
        ("SumImplementation(partial(own_sum, group=group, shared=sparse))", "group-too-wide"),
        ("SumImplementation(run=partial(own_sum, group))", "group-too-wide"),
        # nothing brought: the declared group, over which the routed experts are right
        ("SumImplementation(None)", "group-too-narrow"),
        ("None", "group-too-narrow"),
        # over one copy's ranks
        ("SumImplementation(partial(own_sum, group=get_parallel().moe_tp_group))", None),
    ],
)
def test_a_sum_that_a_layer_brings_runs_instead_of_the_declared_one(
    judged: Judge, change: Any, run: str, rule: str | None
) -> None:
    sound = (*change.stages, change.never_summed, change.added_once)
    library = {**picking(change), "layers/layer_boundary/sums.py": SUMS}
    result = judged(*sound, *bringing(run), library=library)
    assert result.rules == ([(rule, "0000")] if rule else [])
    if rule == "group-too-wide":
        (finding,) = result.findings
        assert (finding.cls, finding.kind) == ("Layer", "double")
        assert finding.takes == ("moe_dp_size > 1",)
        assert "boundary" in finding.related[0].what


def test_engine_with_one_copy_of_the_experts_has_one_group(judged: Judge, change: Any) -> None:
    library = picking(change)
    library["distributed/parallel_state.py"] = "def groups():\n    pass\n"
    assert (
        judged(*change.stages, change.never_summed, change.added_once, library=library).rules == []
    )


def test_block_that_sums_over_every_copy(judged: Judge, change: Any) -> None:
    result = judged(library=COPIES)
    (finding,) = result.findings
    assert (finding.rule, finding.reach) == ("group-too-wide", "conditional")
    assert "code says nothing" in finding.needs[0]
    knows = ("attn_tp_size=1), self.norm", "attn_tp_size=1, attn_cp_size=1), self.norm")
    result = judged(knows, library=COPIES)
    (finding,) = result.findings
    assert (finding.reach, finding.needs) == (None, ())
    assert [site.verdict for site in result.sites if site.site.line == finding.line] == ["finding"]
    assert (finding.rule, finding.kind, finding.method) == ("group-too-wide", "double", "forward")
    by_axis = (
        "            out = tensor_model_parallel_all_reduce(out)\n",
        "            out = moe_expert_parallel_all_reduce(out)\n"
        "            out = moe_tensor_model_parallel_all_reduce(out)\n",
    )
    # summed over one copy's ranks, the experts are right and what is beside them is not
    result = judged(knows, by_axis, library=COPIES)
    assert result.rules == [("group-too-narrow", "0000")]
    (finding,) = result.findings
    assert finding.sums.startswith("moe_expert_parallel_all_reduce in models/")
    (by,) = [one for one in finding.related if one.what == SUMS_UP]
    assert finding.sums.split()[2] == f"{by.file.removeprefix('sglang/srt/')}:{by.line},"


FUSION = """
def ensure_workspace_initialized(use_attn_tp_group=True):
    whole = get_tp_group()
    if use_attn_tp_group:
        coordinator = get_attn_tp_group()
    else:
        if get_parallel().moe_ep_size > 1:
            coordinator = get_moe_ep_group()
        else:
            coordinator = get_moe_tp_group()
    return whole, coordinator
"""
NORM = """
class RMSNorm:
    def forward_with_allreduce_fusion(self, x, residual, use_attn_tp_group=True):
        return fused(self, x, residual, use_attn_tp_group)
"""
FUSES = """
from sglang.srt.layers.moe.utils import should_use_dp_reduce_scatterv


class LayerCommunicator:
    def __init__(self, modes, input_layernorm, allow_reduce_scatter=False, is_last_layer=False):
        self.input_layernorm = input_layernorm

    def prepare_attn(self, hidden_states, residual):
        return self.input_layernorm.forward_with_allreduce_fusion(
            hidden_states, residual, use_attn_tp_group=False
        )

    def should_use_reduce_scatter(self, batch):
        return False

    def should_fuse_mlp_allreduce_with_next_layer(self, batch):
        return fusion_applies(batch) and not self.is_last_layer
"""
GUARD = """        parallel = get_parallel()
        if parallel.moe_ep_size > 1 and parallel.moe_tp_size > 1:
            return False
"""
FUSED_LIBRARY = {
    "layers/flashinfer_comm_fusion.py": FUSION,
    "layers/layernorm.py": NORM,
    "layers/communicator.py": FUSES,
}


def fused_rules(scanned: Any, sample: Any, **changed: str) -> list[tuple[str, str | None]]:
    library = dict(FUSED_LIBRARY)
    for path, text in FUSED_LIBRARY.items():
        library[path] = changed.get(path.rpartition("/")[2].removesuffix(".py"), text)
    result = scanned(sample.block, sample.layer, library=library)
    assert result.unread == ()
    return [(f.rule, f.file) for f in result.findings if f.rule.startswith("group-")]


def test_fused_norm_that_sums_over_one_of_two_groups(scanned: Any, sample: Any) -> None:
    communicator = "sglang/srt/layers/communicator.py"
    assert fused_rules(scanned, sample) == [("group-too-narrow", communicator)]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("communicator", "        return fusion_applies", GUARD + "        return fusion_applies"),
        ("flashinfer_comm_fusion", "get_moe_ep_group()", "get_tp_group()"),
        ("layernorm", "residual, use_attn_tp_group)", "residual, use_attn_tp_group=True)"),
        ("communicator", "use_attn_tp_group=False", "use_attn_tp_group=True"),
    ],
    ids=["the layer does not fuse there", "the whole group", "a norm of its own", "attention's"],
)
def test_fused_norm_that_sums_over_all_of_them(
    scanned: Any, sample: Any, file: str, old: str, new: str
) -> None:
    text = FUSED_LIBRARY[next(path for path in FUSED_LIBRARY if path.endswith(f"{file}.py"))]
    assert fused_rules(scanned, sample, **{file: sample.changed(text, old, new)}) == []


def test_fused_norm_beside_copies_loses_what_is_split_over_all_ranks(
    judged: Judge, scanned: Any, sample: Any
) -> None:
    shared = sample.changed(
        sample.block,
        "        self.experts",
        "        self.beside = RowParallelLinear(8, 8, reduce_results=False)\n        self.experts",
    )
    shared = sample.changed(shared, "self.experts(x)", "self.experts(x) + self.beside(x)[0]")
    guarded = {
        **FUSED_LIBRARY,
        "layers/communicator.py": FUSES.replace(
            "        return fusion_applies", GUARD + "        return fusion_applies"
        ),
    }

    def found(library: dict[str, str]) -> set[tuple[str, str | None]]:
        result = scanned(shared, sample.layer, library=library)
        return {(f.rule, f.row) for f in result.findings if f.file and "communicator" in f.file}

    assert found(guarded) == set()
    assert found({**guarded, **COPIES}) == {("group-too-narrow", "1000")}
