"""Random layers on several simulated ranks, following the plan: what one rank computes, exactly."""

import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from helper import ConfigError, Consumer, Layer, MoeConfig, Placement, PlanError, plan_layer
from helper.config import A2A_BACKENDS, FULL_EP_BACKENDS

sys.path.insert(0, str(Path(__file__).parent))
tensors = import_module("plan_on_tensors")
sys.path.pop(0)

ADDENDS = st.sampled_from([(), ("shared",), ("whole",), ("shared", "whole")])


@st.composite
def configs(draw: st.DrawFn) -> MoeConfig:
    """Any that a server could have on up to eight ranks."""
    ranks = draw(st.sampled_from([1, 2, 3, 4, 6, 8]))
    sizes = st.sampled_from([size for size in range(1, ranks + 1) if ranks % size == 0])
    cp = draw(sizes)
    dp = draw(sizes) if cp == 1 else 1
    ep = draw(sizes)
    kind = draw(st.sampled_from(["plain", "all-to-all", "fp4"]))
    if kind == "all-to-all":
        ep = ranks
    if kind == "fp4":
        ep = draw(st.sampled_from([1, ranks]))
    try:
        return MoeConfig(
            tp_size=ranks,
            ep_size=ep,
            moe_dp_size=draw(st.sampled_from([1, cp])),
            attn_dp_size=ep if kind == "fp4" else dp,
            attn_cp_size=cp,
            enable_dp_attention=(ep if kind == "fp4" else dp) > 1,
            moe_a2a_backend=draw(st.sampled_from(sorted(FULL_EP_BACKENDS & {*A2A_BACKENDS})))
            if kind == "all-to-all"
            else "none",
            moe_runner_backend="flashinfer_cutlass" if kind == "fp4" else "auto",
            quantization="modelopt_fp4" if kind == "fp4" else None,
        )
    except ConfigError:
        assume(False)
        raise


@st.composite
def worlds(draw: st.DrawFn) -> "tensors.World":
    config = draw(configs())
    block = draw(st.sampled_from(["experts", "dense"]))
    layer = Layer(
        block=block,
        next=draw(st.sampled_from(["norm", "fused norm", "stage end", "model end"])),
        equal_rows=config.attn_dp_size > 1 and draw(st.booleans()),
        contexts_differ=config.attn_cp_size > 1 and draw(st.booleans()),
        may_scatter=draw(st.booleans()),
        dense_on_own_rows=block == "dense" and draw(st.booleans()),
        experts_everywhere=block == "experts"
        and config.moe_a2a_backend == "none"
        and draw(st.booleans()),
    )
    tokens = draw(st.lists(st.integers(0, 3), min_size=8, max_size=8))
    assume(max(tokens) > 0)
    return tensors.World(
        config=config, layer=layer, tokens=tokens, seed=draw(st.integers(0, 1 << 30))
    )


@settings(max_examples=400, deadline=None)
@given(worlds(), ADDENDS)
def test_several_ranks_compute_what_one_does(world, addends):
    try:
        plan = plan_layer(world.config, world.layer)
    except PlanError:
        assume(False)
    assert tensors.is_exact(world, plan, addends=addends), plan


HYBRID = MoeConfig(tp_size=4, ep_size=2)
ATTENTION_DP = MoeConfig(tp_size=4, ep_size=4, attn_dp_size=4, enable_dp_attention=True)
CONTEXTS = MoeConfig(tp_size=4, attn_cp_size=2)
COPIES = MoeConfig(tp_size=4, ep_size=2, moe_dp_size=2, attn_cp_size=2)
DEEPEP = MoeConfig(tp_size=4, ep_size=4, moe_a2a_backend="deepep")
FUSED = Layer(next="fused norm")


@pytest.mark.parametrize(
    ("config", "layer", "field", "wrong"),
    [
        (HYBRID, Layer(), "block_sum", "ep"),
        (HYBRID, Layer(), "block_sum", "none"),
        (HYBRID, FUSED, "block_sum", "tp"),
        (HYBRID, FUSED, "consumer", Consumer(step="fused norm", over="ep")),
        (HYBRID, FUSED, "consumer", Consumer(step="nothing", over="none")),
        (HYBRID, FUSED, "whole_on", "every rank"),
        (HYBRID, Layer(), "shared", Placement(over="none")),
        (HYBRID, Layer(), "shared", Placement(over="ep")),
        (HYBRID, Layer(block="dense"), "dense", Placement(over="none")),
        (ATTENTION_DP, Layer(), "consumer", Consumer(step="own rows", over="none")),
        (ATTENTION_DP, Layer(), "consumer", Consumer(step="reduce_scatter", over="tp")),
        (ATTENTION_DP, Layer(), "block_sum", "tp"),
        (ATTENTION_DP, Layer(), "rows", "attention group"),
        (CONTEXTS, Layer(contexts_differ=True), "rows", "attention group"),
        (CONTEXTS, Layer(block="dense", contexts_differ=True), "block_sum", "tp"),
        (COPIES, Layer(contexts_differ=True), "block_sum", "tp"),
        (COPIES, Layer(), "shared", Placement(over="tp")),
        (DEEPEP, Layer(), "block_sum", "tp"),
        (DEEPEP, Layer(), "shared", Placement(over="tp")),
        (DEEPEP, Layer(), "consumer", Consumer(step="nothing", over="none")),
    ],
)
def test_a_wrong_field_is_seen(config, layer, field, wrong):
    plan = plan_layer(config, layer)
    assert getattr(plan, field) != wrong
    world = tensors.World(config=config, layer=layer, tokens=[2, 1, 3, 2] * 2, seed=1)
    addends = ("shared", "whole")
    assert tensors.is_exact(world, plan, addends=addends)
    assert not tensors.is_exact(world, replace(plan, **{field: wrong}), addends=addends)
