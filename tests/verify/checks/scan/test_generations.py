"""The newer shapes: flags published on a context, and boundaries that own the sum."""

from collections.abc import Callable
from typing import Any

import pytest

from verify.checks.scan.scan import ScanResult

Scan = Callable[..., ScanResult]

CONTEXT_UTILS = """
def should_use_flashinfer_cutlass_moe_fp4_allgather():
    return get_moe_a2a_backend().is_none() and is_dp_attention_enabled() and FP4


def should_use_dp_reduce_scatterv():
    return (
        not should_use_flashinfer_cutlass_moe_fp4_allgather()
        and get_moe_a2a_backend().is_none()
        and is_dp_attention_enabled()
        and get_moe_expert_parallel_world_size() == get_attention_dp_size()
    )


def should_skip_mlp_all_reduce():
    f = get_forward()
    return f.fuse_mlp_allreduce or f.mlp_reduce_scatter


def should_skip_post_experts_all_reduce(*, is_tp_path):
    return (
        should_skip_mlp_all_reduce()
        or should_use_dp_reduce_scatterv()
        or (is_tp_path and should_use_flashinfer_cutlass_moe_fp4_allgather())
    )


def reduce_moe_output(x):
    if get_tensor_model_parallel_world_size() > 1 and not should_skip_post_experts_all_reduce(
        is_tp_path=True
    ):
        return tensor_model_parallel_all_reduce(x)
    return x
"""

CONTEXT_BLOCK = """
from sglang.srt.layers.moe.utils import reduce_moe_output
from sglang.srt.runtime_context import get_forward


class Block:
    def __init__(self, config):
        self.experts = FusedMoE(num_experts=config.n)

    def forward(self, x, batch=None):
        return reduce_moe_output(self.experts(x))
"""

CALL = "        hidden_states = self.mlp(hidden_states, batch, fuse, scatter)\n"
PUBLISHED = (
    "        with get_forward().scoped(fuse_mlp_allreduce=fuse, mlp_reduce_scatter=scatter):\n"
    "            hidden_states = self.mlp(hidden_states, batch)\n"
)

BOUNDARY_LAYER = """
from sglang.srt.layers.layer_boundary import append_stages, declare_attn, declare_ffn


class Dense:
    def __init__(self, config, reduce_results=True):
        self.down = RowParallelLinear(config.n, config.h, reduce_results=reduce_results)

    def forward(self, x):
        x, _ = self.down(x)
        return x


class Layer:
    def __init__(self, config):
        self.mlp = Dense(config, reduce_results=False)
        self.norm = RMSNorm(config.h)
        self.before, self.after = append_stages(
            (declare_attn(), self.norm), (declare_ffn(sparse=False), self.norm)
        )

    def forward(self, positions, hidden_states, batch):
        hidden_states = self.after.prepare(hidden_states, batch)
        return self.after.finish(self.mlp(hidden_states), batch)
"""


def rows(result: ScanResult) -> list[tuple[str, str | None]]:
    return [(finding.rule, finding.row) for finding in result.findings]


def published(scanned: Scan, sample: Any, call: str) -> ScanResult:
    layer = sample.changed(sample.layer, CALL, call)
    return scanned(CONTEXT_BLOCK, layer, library={"layers/moe/utils.py": CONTEXT_UTILS})


def test_flags_published_around_the_call_arrive(scanned: Scan, sample: Any) -> None:
    result = published(scanned, sample, PUBLISHED)
    assert rows(result) == []
    (site,) = result.sites
    assert (site.site.collective, site.verdict) == ("reduce_moe_output", "covered")
    assert site.site.skips_on == ("AF", "RS", "DP", "FI")


@pytest.mark.parametrize(
    ("old", "new", "row"),
    [
        (", mlp_reduce_scatter=scatter", "", "0100"),
        ("fuse_mlp_allreduce=fuse, ", "", "1000"),
        (
            "            hidden_states = self.mlp(hidden_states, batch)\n",
            "            pass\n        hidden_states = self.mlp(hidden_states, batch)\n",
            "0100",
        ),
    ],
)
def test_flag_that_is_not_published_is_lost(
    scanned: Scan, sample: Any, old: str, new: str, row: str
) -> None:
    result = published(scanned, sample, sample.changed(PUBLISHED, old, new))
    assert ("flag-lost", row) in rows(result)


def test_boundary_completes_what_is_owed(scanned: Scan) -> None:
    assert rows(scanned(BOUNDARY_LAYER)) == []


def test_block_that_reduces_in_front_of_a_boundary(scanned: Scan) -> None:
    result = scanned(BOUNDARY_LAYER.replace(", reduce_results=False", ""))
    assert rows(result) == [("producer-ignores-consumer", "0000")]
    assert "reduce_results=False" in result.findings[0].fix


def test_boundary_that_was_told_the_output_is_complete(scanned: Scan) -> None:
    told = BOUNDARY_LAYER.replace("sparse=False", "sparse=False, output_complete=True")
    assert ("lost-sum", "0000") in rows(scanned(told))
    assert rows(scanned(told.replace(", reduce_results=False", ""))) == []


def test_complete_now_can_be_told_it_is_reduced(scanned: Scan) -> None:
    reduced = BOUNDARY_LAYER.replace(", reduce_results=False", "").replace(
        "self.after.finish(self.mlp(hidden_states), batch)",
        "self.after.complete_now(self.mlp(hidden_states), batch, already_reduced=True)",
    )
    assert rows(scanned(reduced)) == []
