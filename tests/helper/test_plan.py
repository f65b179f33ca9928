"""The plan's own promises; that every sum is made once is shown in tests/verify/checks/prove."""

from dataclasses import replace

import pytest

from helper import Layer, MoeConfig, PlanError, plan_layer
from helper.plan import Part
from verify.parallel.deployment import layouts, with_backends

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
            assert summing == ([] if plan.over("routed") == "none" else [plan.over("routed")])


def test_no_group_is_named_that_has_one_rank() -> None:
    for config in CONFIGS:
        sizes = {
            "none": 2,
            "tp": config.tp_size,
            "ep": config.ep_size,
            "moe_tp": config.moe_tp_size,
            "attn_tp": config.attn_tp_size,
        }
        for layer in [each for one in PASSES for each in (one, replace(one, block="dense"))]:
            plan = plan_layer(config, layer)
            part: Part = "dense" if layer.block == "dense" else "routed"
            named = {plan.block_sum, plan.consumer.over, plan.over(part)}
            assert all(sizes[group] > 1 for group in named), (config, layer)


def test_a_whole_value_is_added_by_one_rank_exactly_where_its_sum_is_still_owed() -> None:
    for config in CONFIGS:
        for layer in PASSES:
            plan = plan_layer(config, layer)
            owed = plan.consumer.over != "none"
            assert plan.whole_on == ("first rank" if owed else "every rank")


def test_shares_are_gathered_where_there_are_several() -> None:
    for config in CONFIGS:
        gathers = plan_layer(config, Layer(block="dense", dense_on_own_rows=True)).consumer.step
        assert gathers == ("gather shares" if config.attn_tp_size > 1 else "nothing")


def test_a_dense_mlp_is_cut_over_all_ranks_where_all_have_the_same_tokens() -> None:
    for config in CONFIGS:
        if config.attn_cp_size == 1 and config.tp_size > 1:
            assert plan_layer(config, Layer(block="dense")).dense.over == "tp"


EVERYONE = MoeConfig(tp_size=4, ep_size=4, attn_dp_size=4, enable_dp_attention=True)
FP4 = replace(EVERYONE, moe_runner_backend="flashinfer_cutlass", quantization="modelopt_fp4")
GROUPS = MoeConfig(tp_size=4, attn_dp_size=2, enable_dp_attention=True)


@pytest.mark.parametrize(
    ("config", "layer", "why"),
    [
        (MoeConfig(), Layer(), "no two ranks hold different parts"),
        (MoeConfig(tp_size=2), Layer(), "no later step sums: the block does"),
        (MoeConfig(tp_size=2), Layer(next="stage end"), "nothing after the stage's last layer"),
        (MoeConfig(tp_size=2), Layer(next="model end"), "nothing after the model's last layer"),
        (MoeConfig(tp_size=2), Layer(next="fused norm"), "summed over tp by the next layer's"),
        (GROUPS, Layer(), "attention groups bring different numbers of rows"),
        (GROUPS, Layer(next="model end"), "attention groups bring different numbers of rows"),
        (GROUPS, Layer(equal_rows=True), "summed over tp by LayerCommunicator's reduce-scatter"),
        (EVERYONE, Layer(), "summed over tp by LayerCommunicator's reduce_scatterv"),
        (EVERYONE, Layer(experts_everywhere=True), "every rank has every expert whole"),
        (FP4, Layer(), "summed over tp by the standard dispatcher's combine"),
        (MoeConfig(tp_size=2, ep_size=2, moe_a2a_backend="deepep"), Layer(), "the dispatcher's"),
        (MoeConfig(tp_size=4, attn_cp_size=2), Layer(), "contexts are gathered for the experts"),
        (
            MoeConfig(tp_size=4),
            Layer(block="dense", dense_on_own_rows=True),
            "a dense block on the rank's own tokens is whole",
        ),
    ],
)
def test_why_is_the_reason(config: MoeConfig, layer: Layer, why: str) -> None:
    assert plan_layer(config, layer).why.startswith(why)


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
    # and is given no others' tokens to begin with
    assert (plan.rows, plan.consumer.step) == ("attention group", "nothing")


def test_nothing_is_cut_out_of_rows_that_all_contexts_have() -> None:
    config = MoeConfig(tp_size=4, attn_cp_size=2)
    assert plan_layer(config, Layer()).consumer.step == "nothing"
    assert plan_layer(config, Layer(contexts_differ=True)).consumer.step == "own rows"


def test_a_reduce_scatter_stands_in_for_both_sums_of_a_hybrid_layer() -> None:
    config = MoeConfig(tp_size=4, ep_size=2, attn_dp_size=2, enable_dp_attention=True)
    plan = plan_layer(config, Layer(equal_rows=True))
    assert (plan.block_sum, plan.consumer.step) == ("none", "reduce_scatter")


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
        (MoeConfig(tp_size=2, moe_a2a_backend="customized"), Layer(), "plug-in's combine"),
    ],
)
def test_what_cannot_be_planned_is_refused(config: MoeConfig, layer: Layer, why: str) -> None:
    with pytest.raises(PlanError, match=why):
        plan_layer(config, layer)


def test_a_dense_block_beside_a_plug_in_is_planned() -> None:
    """It meets no dispatcher: only experts are refused."""
    config = MoeConfig(tp_size=2, moe_a2a_backend="customized")
    assert plan_layer(config, Layer(block="dense")).block_sum == "tp"
