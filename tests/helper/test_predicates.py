"""DP and FI, from the configuration."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helper import (
    ConfigError,
    MoeConfig,
    NoConfigError,
    should_use_dp_reduce_scatterv,
    should_use_flashinfer_cutlass_moe_fp4_allgather,
    use_config,
)
from helper.predicates import uses_dp_reduce_scatterv, uses_flashinfer_fp4_allgather

PLAIN_DP = MoeConfig(tp_size=4, ep_size=4, attn_dp_size=4, enable_dp_attention=True)
FP4 = replace(PLAIN_DP, moe_runner_backend="flashinfer_cutlass", quantization="modelopt_fp4")
SMALLER_GROUPS = replace(PLAIN_DP, ep_size=2, attn_dp_size=2)


def flags(config: MoeConfig) -> tuple[bool, bool]:
    with use_config(config):
        return (
            should_use_dp_reduce_scatterv(),
            should_use_flashinfer_cutlass_moe_fp4_allgather(),
        )


def test_dp_alone() -> None:
    assert flags(PLAIN_DP) == (True, False)


def test_fi_alone() -> None:
    assert flags(FP4) == (False, True)


def test_ep_smaller_than_the_world_is_enough_for_dp() -> None:
    assert flags(SMALLER_GROUPS) == (True, False)


# each change breaks one condition; what is left of (DP, FI)
BROKEN_FP4 = {
    "disabled": ({"disable_flashinfer_cutlass_moe_fp4_allgather": True}, (True, False)),
    "an all-to-all backend": ({"moe_a2a_backend": "flashinfer"}, (False, False)),
    "another runner": ({"moe_runner_backend": "flashinfer_trtllm"}, (True, False)),
    "another quantisation": ({"quantization": "modelopt_fp8"}, (True, False)),
    "no quantisation": ({"quantization": None}, (True, False)),
    "no attention DP": ({"attn_dp_size": 1, "enable_dp_attention": False}, (False, False)),
    "fewer attention groups than EP ranks": ({"attn_dp_size": 2}, (False, False)),
    "no EP": ({"ep_size": 1}, (False, False)),
}


@pytest.mark.parametrize(("change", "left"), BROKEN_FP4.values(), ids=BROKEN_FP4)
def test_every_condition_of_fi_matters(change: dict[str, object], left: tuple[bool, bool]) -> None:
    assert flags(replace(FP4, **change)) == left  # type: ignore[arg-type]  # names above


@given(st.from_type(MoeConfig))
def test_dp_and_fi_never_together(config: MoeConfig) -> None:
    assert not (uses_dp_reduce_scatterv(config) and uses_flashinfer_fp4_allgather(config))


@given(st.from_type(MoeConfig))
def test_either_flag_needs_several_attention_groups_and_as_many_expert_ranks(
    config: MoeConfig,
) -> None:
    if any(flags(config)):
        assert config.enable_dp_attention
        assert config.ep_size == config.attn_dp_size > 1


@given(st.from_type(MoeConfig), st.data())
def test_only_the_named_fields_matter(config: MoeConfig, data: st.DataObject) -> None:
    # moe_dp and attn_cp take part in the sizes, but no predicate reads them
    other = data.draw(st.sampled_from(("moe_dp_size", "attn_cp_size")))
    try:
        changed = replace(config, **{other: 1})
    except ConfigError:
        return
    assert flags(changed) == flags(config)


@pytest.mark.parametrize(
    "predicate", [should_use_dp_reduce_scatterv, should_use_flashinfer_cutlass_moe_fp4_allgather]
)
def test_asking_without_a_configuration_is_an_error(predicate: object) -> None:
    assert callable(predicate)
    with pytest.raises(NoConfigError):
        predicate()


def test_the_samples_use_every_field() -> None:
    """A field that no sample changes would be a field that no test reads."""
    changed = {name for change, _ in BROKEN_FP4.values() for name in change}
    fixed = {field.name for field in fields(MoeConfig) if getattr(FP4, field.name) == field.default}
    assert fixed - changed == {"moe_dp_size", "attn_cp_size"}
