"""The predicate, and the one list that it derives from."""

import ast
import inspect
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import helper
from helper import (
    PATHS,
    SKIP_REASONS,
    MoeConfig,
    NoConfigError,
    reasons,
    should_skip_post_experts_all_reduce,
    use_config,
)
from helper.predicates import uses_dp_reduce_scatterv, uses_flashinfer_fp4_allgather

OFF = MoeConfig()
DP = MoeConfig(tp_size=2, ep_size=2, attn_dp_size=2, enable_dp_attention=True)
FI = replace(DP, moe_runner_backend="flashinfer_cutlass", quantization="modelopt_fp4")
NAMES = [reason.name for reason in SKIP_REASONS]


@given(st.from_type(MoeConfig), st.booleans(), st.booleans(), st.booleans())
def test_the_predicate_in_upstream_s_words(
    config: MoeConfig, is_tp_path: bool, scatter: bool, fusion: bool
) -> None:
    expected = (
        fusion
        or scatter
        or uses_dp_reduce_scatterv(config)
        or (is_tp_path and uses_flashinfer_fp4_allgather(config))
    )
    with use_config(config):
        assert (
            should_skip_post_experts_all_reduce(
                is_tp_path=is_tp_path,
                use_reduce_scatter=scatter,
                should_allreduce_fusion=fusion,
            )
            is expected
        )


@given(st.from_type(MoeConfig), st.booleans(), st.booleans())
def test_the_paths_differ_by_fi_alone(config: MoeConfig, scatter: bool, fusion: bool) -> None:
    with use_config(config):
        ep, tp = (
            should_skip_post_experts_all_reduce(
                is_tp_path=is_tp_path, use_reduce_scatter=scatter, should_allreduce_fusion=fusion
            )
            for is_tp_path in (False, True)
        )
    only_fi = uses_flashinfer_fp4_allgather(config) and not (scatter or fusion)
    assert (ep != tp) == only_fi


def test_fi_is_of_the_tp_path() -> None:
    with use_config(FI):
        assert should_skip_post_experts_all_reduce(is_tp_path=True)
        assert not should_skip_post_experts_all_reduce(is_tp_path=False)


@given(
    st.sampled_from(PATHS),
    st.fixed_dictionaries({name: st.booleans() for name in NAMES}),
    st.sampled_from(NAMES),
)
def test_raising_a_flag_never_unskips(
    path: helper.Path, values: dict[str, bool], raised: str
) -> None:
    before = reasons.any_reason(path=path, values=values)
    assert reasons.any_reason(path=path, values={**values, raised: True}) >= before


def test_no_reason_means_reduce() -> None:
    for path in PATHS:
        assert not reasons.any_reason(path=path, values=dict.fromkeys(NAMES, False))


@pytest.mark.parametrize("name", NAMES)
def test_each_reason_alone_skips_exactly_on_its_paths(name: str) -> None:
    alone = {**dict.fromkeys(NAMES, False), name: True}
    skipped = tuple(path for path in PATHS if reasons.any_reason(path=path, values=alone))
    assert skipped == next(reason.paths for reason in SKIP_REASONS if reason.name == name)


def test_a_given_value_overrules_the_configuration() -> None:
    with use_config(DP):
        assert reasons.any_reason(path="EP", values={})
        assert not reasons.any_reason(path="EP", values={"dp_reduce_scatterv": False})


@pytest.mark.parametrize("is_tp_path", [False, True])
def test_a_true_argument_needs_no_configuration(is_tp_path: bool) -> None:
    assert should_skip_post_experts_all_reduce(is_tp_path=is_tp_path, use_reduce_scatter=True)
    assert should_skip_post_experts_all_reduce(is_tp_path=is_tp_path, should_allreduce_fusion=True)


@pytest.mark.parametrize("is_tp_path", [False, True])
def test_an_answer_that_needs_a_configuration_is_an_error_without_one(is_tp_path: bool) -> None:
    with pytest.raises(NoConfigError):
        should_skip_post_experts_all_reduce(is_tp_path=is_tp_path)


def test_the_signature_is_upstream_s() -> None:
    signature = inspect.signature(should_skip_post_experts_all_reduce)
    assert str(signature) == (
        "(*, is_tp_path: bool, use_reduce_scatter: bool = False, "
        "should_allreduce_fusion: bool = False) -> bool"
    )


def test_positional_flags_are_refused() -> None:
    with pytest.raises(TypeError):
        should_skip_post_experts_all_reduce(True)  # type: ignore[call-arg,misc]  # refused


def test_a_reason_added_to_the_list_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    fifth = replace(SKIP_REASONS[-1], flag="NW", paths=("EP",), value=lambda: True)
    monkeypatch.setattr(reasons, "SKIP_REASONS", (*SKIP_REASONS, fifth))
    with use_config(OFF):
        assert should_skip_post_experts_all_reduce(is_tp_path=False)
        assert not should_skip_post_experts_all_reduce(is_tp_path=True)


def test_a_reason_removed_from_the_list_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    left = tuple(reason for reason in SKIP_REASONS if reason.flag != "FI")
    monkeypatch.setattr(reasons, "SKIP_REASONS", left)
    with use_config(FI):
        assert not should_skip_post_experts_all_reduce(is_tp_path=True)


def test_the_helper_needs_the_standard_library_only() -> None:
    imported = {
        name.split(".")[0]
        for module in (helper, reasons, helper.config, helper.predicates)
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - {"helper"} <= sys.stdlib_module_names
