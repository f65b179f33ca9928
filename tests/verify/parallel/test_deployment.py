"""Deployments are the legal ones, each once, and the backends' classes are sound."""

from dataclasses import replace
from itertools import islice

import pytest

from helper import MoeConfig
from helper.predicates import uses_flashinfer_fp4_allgather
from verify.parallel.deployment import (
    QUANTIZATIONS,
    Backends,
    Deployment,
    deployments,
    is_legal,
    layouts,
    with_backends,
)
from verify.parallel.scene import Scene


def test_layouts_of_four_ranks():
    found = {(c.ep_size, c.moe_dp_size, c.attn_dp_size, c.attn_cp_size) for c in layouts(4)}
    # no copies of the experts: any ep, with attention data or context parallelism
    assert {(ep, 1, dp, 1) for ep in (1, 2, 4) for dp in (1, 2, 4)} <= found
    assert {(ep, 1, 1, cp) for ep in (1, 2, 4) for cp in (2, 4)} <= found
    # copies need as many contexts, and ep > 1 leaves no MoE tensor parallelism
    assert {(1, 2, 1, 2), (2, 2, 1, 2), (1, 4, 1, 4)} <= found
    assert len(found) == 9 + 6 + 3


def test_every_layout_is_there_once():
    for world_size in range(1, 33):
        found = list(layouts(world_size))
        assert len(found) == len(set(found))
        assert all(config.tp_size == world_size for config in found)


@pytest.mark.parametrize(
    ("backends", "ep_size", "why"),
    [
        (("deepep", "auto", None), 2, "an all-to-all backend sets ep_size = tp_size"),
        (("flashinfer", "triton", None), 4, "flashinfer all-to-all runs flashinfer_cutlass only"),
        (("none", "flashinfer_cutlass", None), 2, "ep_size 1 or tp_size"),
        (("none", "flashinfer_cutlass", "fp8"), 4, "a quantization it does not do"),
        (("none", "cutlass", "fp8"), 4, "fp8 cutlass needs ep_size 1"),
        (("none", "triton", "mxfp8"), 1, "mxfp8 replaces the runner"),
        (("deepep", "flashinfer_cutedsl", "fp8"), 4, "cutedsl does modelopt_fp4 only"),
    ],
)
def test_illegal_backends(backends, ep_size, why):
    a2a, runner, quantization = backends
    names = Backends(
        moe_a2a_backend=a2a,
        moe_runner_backend=runner,
        quantization=quantization,
        disable_flashinfer_cutlass_moe_fp4_allgather=False,
    )
    assert not is_legal(names, ep_is_one=ep_size == 1, ep_is_tp=ep_size == 4), why


def test_classes_count_every_legal_set_of_names():
    for config in layouts(4):
        counted = sum(stands_for for _, stands_for in with_backends(config))
        legal = 0
        for a2a in ("none", "deepep", "mooncake", "nixl", "mori", "ascend_fuseep", "flashinfer"):
            for runner in RUNNERS:
                for quantization in QUANTIZATIONS:
                    for disabled in (False, True):
                        names = Backends(
                            moe_a2a_backend=a2a,
                            moe_runner_backend=runner,
                            quantization=quantization,
                            disable_flashinfer_cutlass_moe_fp4_allgather=disabled,
                        )
                        legal += is_legal(
                            names,
                            ep_is_one=config.ep_size == 1,
                            ep_is_tp=config.ep_size == config.tp_size,
                        )
        assert counted == legal


RUNNERS = (
    "auto",
    "deep_gemm",
    "triton",
    "triton_kernel",
    "flashinfer_trtllm",
    "flashinfer_trtllm_routed",
    "flashinfer_cutlass",
    "flashinfer_mxfp4",
    "flashinfer_cutedsl",
    "cutlass",
    "marlin",
    "aiter",
)


def test_fi_is_its_own_class_and_needs_ep_of_the_whole_world():
    for world_size in range(1, 9):
        for sizes in layouts(world_size):
            for config, _ in with_backends(sizes):
                if uses_flashinfer_fp4_allgather(config):
                    assert config.ep_size == config.attn_dp_size == config.tp_size > 1


def test_deployments_are_distinct_and_ordered():
    first = [weighted.deployment for weighted in islice(deployments(max_world_size=3), 5000)]
    assert len(first) == len(set(first))
    sizes = [deployment.config.tp_size for deployment in first]
    assert sizes == sorted(sizes)


def test_no_fusion_where_it_cannot_be():
    for weighted in deployments(max_world_size=6):
        deployment = weighted.deployment
        config = deployment.config
        if deployment.fusion.startswith(("flashinfer", "no-fused")):
            assert config.attn_dp_size == 1
            assert config.tp_size > 1
        if deployment.fusion.startswith("aiter"):
            assert config.tp_size not in (1, 6)
            assert config.attn_cp_size == 1
        if deployment.position == "stage-end":
            assert config.moe_dp_size == 1


def test_padding_to_the_largest_hides_uneven_tokens():
    config = MoeConfig(tp_size=4, attn_dp_size=2, enable_dp_attention=True)
    uneven = Deployment(config=config, padding="sum_len", tokens="uneven")
    assert Scene(deployment=uneven, mode="full").sizes == (4, 6)
    padded = replace(uneven, padding="max_len")
    assert Scene(deployment=padded, mode="full").sizes == (4, 4)


def test_json_names_what_differs_from_the_simplest_server():
    config = MoeConfig(tp_size=4, ep_size=2)
    assert Deployment(config=config, fusion="flashinfer").as_json() == {
        "tp_size": 4,
        "ep_size": 2,
        "moe_dp_size": 1,
        "dp_size": 1,
        "attn_cp_size": 1,
        "fusion": "flashinfer",
    }
