"""The plan's own promises; that every sum is made once is shown in tests/verify/ledger."""

import pytest

from helper import Layer, MoeConfig, PlanError, plan_layer
from verify.ledger.deployment import layouts, with_backends

CONFIGS = [
    config for size in range(1, 17) for sizes in layouts(size) for config, _ in with_backends(sizes)
]
PASSES = [
    Layer(next=follows, equal_rows=equal, contexts_differ=differ, may_scatter=scatter)
    for follows in ("norm", "fused norm", "stage end", "model end")
    for equal in (False, True)
    for differ in (False, True)
    for scatter in (False, True)
]


@pytest.mark.parametrize("block", ["experts", "dense"])
def test_weights_are_placed_alike_in_every_forward_pass(block: str) -> None:
    for config in CONFIGS:
        plans = [
            plan_layer(config, Layer(**{**vars(each), "block": block}))  # type: ignore[arg-type]  # any field
            for each in PASSES
        ]
        assert len({(plan.routed, plan.shared, plan.dense) for plan in plans}) == 1, config


def test_somebody_sums_exactly_where_parts_differ() -> None:
    for config in CONFIGS:
        for layer in PASSES:
            plan = plan_layer(config, layer)
            summing = [g for g in (plan.block_sum, plan.consumer.over) if g != "none"]
            assert summing == ([] if plan.routed.replicated else [plan.routed.over])


def test_a_last_layer_and_a_stage_end_leave_nothing_to_the_next() -> None:
    config = MoeConfig(tp_size=4, ep_size=2)
    assert plan_layer(config, Layer(next="fused norm")).block_sum == "none"
    for follows in ("stage end", "model end"):
        assert plan_layer(config, Layer(next=follows)).block_sum == "tp"


def test_the_fused_norm_owes_a_hybrid_layer_both_of_its_groups() -> None:
    """sglang#32963: the fused kernel summed one of the two."""
    plan = plan_layer(MoeConfig(tp_size=4, ep_size=2), Layer(next="fused norm"))
    assert (plan.consumer.step, plan.consumer.over) == ("fused norm", "tp")


def test_a_dense_mlp_under_context_parallelism_stays_within_its_context() -> None:
    """sglang#38078: it summed other context ranks' tokens."""
    config = MoeConfig(tp_size=4, attn_cp_size=2)
    plan = plan_layer(config, Layer(block="dense", contexts_differ=True))
    assert plan.block_sum == plan.dense.over == "attn_tp"


@pytest.mark.parametrize(
    ("config", "layer", "why"),
    [
        (MoeConfig(), Layer(dense_on_own_rows=True), "is about a dense block"),
        (MoeConfig(tp_size=2, ep_size=2), Layer(experts_everywhere=True), "attn_dp_size=1"),
        (
            MoeConfig(tp_size=2, attn_dp_size=2, enable_dp_attention=True),
            Layer(experts_everywhere=True),
            "ep_size=1",
        ),
        (
            MoeConfig(tp_size=4, attn_dp_size=2, attn_cp_size=2, enable_dp_attention=True),
            Layer(),
            "data and context parallelism together",
        ),
    ],
)
def test_what_cannot_be_planned_is_refused(config: MoeConfig, layer: Layer, why: str) -> None:
    with pytest.raises(PlanError, match=why):
        plan_layer(config, layer)
