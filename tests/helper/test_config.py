"""The configuration: what it refuses, and with which words."""

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helper import ConfigError, MoeConfig, NoConfigError, current_config, use_config

REFUSED = {
    "zero": (
        {"tp_size": 0},
        "tp_size=0: a size is a whole number of at least 1",
    ),
    "a boolean is no size": (
        {"ep_size": True},
        "ep_size=True: a size is a whole number of at least 1",
    ),
    "text is no size": (
        {"attn_dp_size": "2"},
        "attn_dp_size='2': a size is a whole number of at least 1",
    ),
    "ep does not divide": (
        {"tp_size": 4, "ep_size": 3},
        "ep_size * moe_dp_size=3 does not divide tp_size=4",
    ),
    "ep larger than the world": (
        {"tp_size": 2, "ep_size": 4},
        "ep_size * moe_dp_size=4 does not divide tp_size=2",
    ),
    "attention does not divide": (
        {"tp_size": 4, "attn_dp_size": 2, "attn_cp_size": 4, "enable_dp_attention": True},
        "attn_dp_size * attn_cp_size=8 does not divide tp_size=4",
    ),
    "experts in three ways": (
        {"tp_size": 8, "ep_size": 2, "moe_dp_size": 2, "attn_cp_size": 2},
        "ep_size=2 with moe_dp_size=2: where both exceed 1 their product must be tp_size=8",
    ),
    "copies without their contexts": (
        {"tp_size": 4, "moe_dp_size": 2},
        "moe_dp_size=2 with attn_cp_size=1: moe_dp_size must be 1 or attn_cp_size",
    ),
    "attention groups while disabled": (
        {"tp_size": 4, "attn_dp_size": 2},
        "attn_dp_size=2 with enable_dp_attention=False: "
        "attention has several data-parallel groups exactly when it is enabled",
    ),
    "one attention group while enabled": (
        {"tp_size": 4, "enable_dp_attention": True},
        "attn_dp_size=1 with enable_dp_attention=True: "
        "attention has several data-parallel groups exactly when it is enabled",
    ),
    "all-to-all without full EP": (
        {"tp_size": 4, "ep_size": 2, "moe_a2a_backend": "deepep"},
        "ep_size=2 with moe_a2a_backend='deepep': the server sets ep_size to tp_size=4 then",
    ),
    "a runner between no EP and full EP": (
        {"tp_size": 4, "ep_size": 2, "moe_runner_backend": "flashinfer_cutlass"},
        "ep_size=2 with moe_runner_backend='flashinfer_cutlass': "
        "ep_size must be 1 or tp_size=4 then",
    ),
    "an unknown runner": (
        {"moe_runner_backend": "cuda"},
        "moe_runner_backend='cuda' is unknown; one of: auto, deep_gemm, triton, triton_kernel, "
        "flashinfer_trtllm, flashinfer_trtllm_routed, flashinfer_cutlass, flashinfer_mxfp4, "
        "flashinfer_cutedsl, cutlass, marlin, aiter",
    ),
    "an unknown all-to-all": (
        {"moe_a2a_backend": None},
        "moe_a2a_backend=None is unknown; one of: none, deepep, mooncake, nixl, mori, "
        "ascend_fuseep, flashinfer, customized",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses_and_says_which_and_why(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MoeConfig(**arguments)  # type: ignore[arg-type]  # wrong types are what is tested
    assert str(caught.value) == message


@given(st.from_type(MoeConfig))
def test_sizes_factor_the_world(config: MoeConfig) -> None:
    assert config.moe_dp_size * config.ep_size * config.moe_tp_size == config.tp_size
    assert config.attn_dp_size * config.attn_cp_size * config.attn_tp_size == config.tp_size


def test_the_default_is_one_rank_without_parallelism() -> None:
    config = MoeConfig()
    assert (config.tp_size, config.moe_tp_size, config.attn_tp_size) == (1, 1, 1)
    assert not config.enable_dp_attention


def test_a_configuration_is_keyword_only_and_cannot_change() -> None:
    with pytest.raises(TypeError):
        MoeConfig(2)  # type: ignore[misc]  # refused
    with pytest.raises(FrozenInstanceError):
        MoeConfig().tp_size = 2  # type: ignore[misc]  # refused


def test_no_configuration_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(NoConfigError) as caught:
        current_config()
    assert str(caught.value) == (
        "no MoE configuration is set: wrap the call in `with use_config(MoeConfig(...)):`"
    )


def test_an_exception_leaves_the_scope() -> None:
    with pytest.raises(ZeroDivisionError), use_config(MoeConfig()):
        raise ZeroDivisionError
    with pytest.raises(NoConfigError):
        current_config()
