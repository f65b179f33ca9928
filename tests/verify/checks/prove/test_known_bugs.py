"""Bugs that upstream knew, found from what the steps do: the guards here are the releases' own.

The guards are written from the pull requests that fixed them; nothing in the ledger knows them.
"""

from dataclasses import replace

import pytest

from helper import MoeConfig
from verify.checks.prove.judge import judge
from verify.checks.prove.subject import dense_subject, helper_guards, skip_table
from verify.engines.sglang.layer import applies
from verify.logic.flags import argument_flags
from verify.parallel.deployment import Deployment, deployments
from verify.parallel.guards import Guards

DP4 = MoeConfig(tp_size=4, ep_size=4, attn_dp_size=4, enable_dp_attention=True)
DP2_EP1 = MoeConfig(tp_size=2, attn_dp_size=2, enable_dp_attention=True)
ALL = argument_flags()


def test_23734_the_ep_reduction_that_ignores_reduce_scatter():
    guards = Guards(
        producer="two-site",
        skip_ep=skip_table(["AF"]),
        skip_tp=skip_table(["AF", "RS", "FI"]),
        accepts=ALL,
    )
    config = MoeConfig(tp_size=4, ep_size=2, attn_dp_size=4, enable_dp_attention=True)
    verdict = judge(Deployment(config=config), guards)
    assert (verdict.kind, verdict.row) == ("double", "0100")
    fixed = Guards(
        producer="two-site",
        skip_ep=skip_table(["AF", "RS"]),
        skip_tp=skip_table(["AF", "RS", "FI"]),
        accepts=ALL,
    )
    assert judge(Deployment(config=config), fixed).kind == "exact"


def test_23729_guards_written_before_the_dp_flag():
    """The flag was raised for every model at once; guards that did not know it reduced as well."""
    guards = Guards(producer="one-site", skip_tp=skip_table(["AF", "RS", "FI"]), accepts=ALL)
    sums = Deployment(config=DP4, padding="sum_len")
    verdict = judge(sums, guards)
    assert (verdict.kind, verdict.row) == ("double", "0010")
    assert verdict.counts == ((4,) * 4,) * 4
    assert judge(sums, helper_guards("one-site")).kind == "exact"


def test_37199_a_guard_that_knows_only_fusion():
    guards = Guards(
        producer="one-site",
        skip_tp=skip_table(["AF"]),
        accepts=frozenset(["AF"]),
        allows_reduce_scatter=False,
    )
    verdict = judge(Deployment(config=DP4), guards)
    assert (verdict.kind, verdict.row) == ("double", "0010")
    assert verdict.counts == ((4,) * 4,) * 4, "tp=4 dp=4 ep=4: the output is four times too large"


def test_32963_fusion_with_expert_and_tensor_parallelism(refuses_hybrid):
    hybrid = Deployment(config=MoeConfig(tp_size=4, ep_size=2), fusion="flashinfer")
    for guards in (helper_guards("one-site"), helper_guards("two-site"), dense_subject().guards):
        verdict = judge(hybrid, guards)
        assert (verdict.kind, verdict.row) == ("missing", "1000")
        assert verdict.counts == ((1, 0, 1, 0), (0, 1, 0, 1), (1, 0, 1, 0), (0, 1, 0, 1))
        fixed = judge(hybrid, guards, release=refuses_hybrid)
        assert (fixed.kind, fixed.row) == ("exact", "0000")


def test_11665_a_layer_that_reduce_scatters_over_a_block_that_is_never_told():
    untold = Guards(producer="one-site", skip_tp=skip_table(["AF"]), accepts=frozenset(["AF"]))
    deployment = Deployment(config=DP2_EP1)
    assert judge(deployment, untold).kind == "exact"
    told = Guards(
        producer="one-site",
        skip_tp=skip_table(["AF"]),
        accepts=frozenset(["AF"]),
        allows_reduce_scatter=True,
    )
    assert judge(deployment, told).kind == "double"


def test_a_last_layer_that_does_not_know_it_leaves_its_sum_to_nobody():
    last = Deployment(config=MoeConfig(tp_size=2), fusion="flashinfer", position="last")
    knowing = helper_guards("one-site")
    assert (judge(last, knowing).kind, judge(last, knowing).row) == ("exact", "0000")
    verdict = judge(last, replace(knowing, knows_last_layer=False))
    assert (verdict.kind, verdict.row) == ("missing", "1000")
    assert verdict.counts == ((1, 0), (0, 1))


@pytest.mark.parametrize("producer", ["one-site", "two-site"])
def test_the_helper_holds_wherever_only_its_flags_matter(producer):
    """No fusion, no MoE data parallelism, no FI, sizes that fit: the helper is right everywhere."""
    guards = helper_guards(producer)
    judged = 0
    for weighted in deployments(max_world_size=6):
        deployment = weighted.deployment
        config = deployment.config
        if (
            applies(deployment, guards)
            and deployment.fusion == "off"
            and config.moe_dp_size == 1
            and not deployment.fp4_allgather
            and not (deployment.sums_by_scatterv and config.attn_tp_size > 1)
        ):
            judged += 1
            assert judge(deployment, guards).kind == "exact", deployment
    assert judged > 1000


def test_ep_reduction_after_combine_is_wrong_in_the_original_and_in_the_helper():
    """FI, qwen3_moe: the dispatcher has summed and scattered, and EP adds up different tokens."""
    config = MoeConfig(
        tp_size=2,
        ep_size=2,
        attn_dp_size=2,
        enable_dp_attention=True,
        moe_runner_backend="flashinfer_cutlass",
        quantization="modelopt_fp4",
    )
    assert judge(Deployment(config=config), helper_guards("two-site")).kind == "mixed"
    assert judge(Deployment(config=config), helper_guards("one-site")).kind == "exact"
    uneven = Deployment(config=config, padding="sum_len", tokens="uneven")
    assert judge(uneven, helper_guards("two-site")).kind == "crash"


def test_a_whole_shared_expert_added_after_a_sum_that_is_left_to_a_later_step():
    """glm4_moe before 0.5.4, EP: added after the reduction, whether or not that took place."""
    guards = Guards(
        producer="one-site",
        skip_tp=skip_table(["AF"]),
        accepts=frozenset(["AF"]),
        adds_shared="after",
    )
    config = MoeConfig(tp_size=4, ep_size=4)
    reduced = Deployment(config=config, shared="replicated")
    assert judge(reduced, guards).kind == "exact"
    left = Deployment(config=config, shared="replicated", fusion="flashinfer")
    verdict = judge(left, guards)
    assert (verdict.kind, verdict.family) == ("double", "shared")
    assert verdict.counts == ((4,) * 4,) * 4
