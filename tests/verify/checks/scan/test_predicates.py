"""Predicates that blocks take for what their names say, and the same ones answering otherwise."""

from collections.abc import Callable
from typing import Any

import pytest

from verify.checks.scan.scan import ScanResult
from verify.report.report import Finding

FILE = "layers/moe/utils.py"
APART = """
def should_use_flashinfer_cutlass_moe_fp4_allgather():
    return (
        not get_flags().moe.disable_fp4_allgather
        and get_moe_a2a_backend().is_none()
        and get_moe_runner_backend().is_flashinfer_cutlass()
        and is_dp_attention_enabled()
        and get_flags().moe.quantization == "modelopt_fp4"
    )


def should_use_dp_reduce_scatterv():
    return (
        not should_use_flashinfer_cutlass_moe_fp4_allgather()
        and get_moe_a2a_backend().is_none()
        and is_dp_attention_enabled()
        and get_parallel().attn_dp_size > 1
        and get_parallel().tp_size == get_parallel().attn_dp_size
    )


def should_skip_mlp_all_reduce():
    return get_forward().fuse_mlp_allreduce or get_forward().mlp_reduce_scatter


def post_experts_output_is_complete(*, is_tp_path):
    if get_parallel().dwdp_size > 1:
        return True
    if should_use_flashinfer_cutlass_moe_fp4_allgather():
        return True
    a2a = get_moe_a2a_backend()
    return a2a.is_flashinfer() or a2a.is_pplx()


def should_skip_post_experts_all_reduce(*, is_tp_path):
    return should_skip_mlp_all_reduce() or post_experts_output_is_complete(is_tp_path=is_tp_path)


def can_merge_post_experts_all_reduce():
    return get_parallel().moe_ep_size > 1 and get_parallel().moe_dp_size == 1
"""
TOGETHER = """
def should_skip_post_experts_all_reduce(*, is_tp_path):
    if should_skip_mlp_all_reduce():
        return True
    if should_use_dp_reduce_scatterv():
        return True
    if is_tp_path and should_use_flashinfer_cutlass_moe_fp4_allgather():
        return True
    if get_moe_a2a_backend().is_flashinfer():
        return True
    return False
"""
BACKEND, BOTH = "an all-to-all backend", "should_skip_post_experts_all_reduce"
DONE, BY_TOKENS = "post_experts_output_is_complete", "should_use_dp_reduce_scatterv"
FP4 = "should_use_flashinfer_cutlass_moe_fp4_allgather"


def said_of(scanned: Callable[..., ScanResult], text: str) -> dict[str, Finding]:
    """What is said of each function; with least needs where it is several things."""
    found: dict[str, Finding] = {}
    for one in scanned("", library={FILE: text}).findings:
        known = found.setdefault(one.method or "", one)
        found[one.method or ""] = min(known, one, key=lambda each: len(each.needs))
    return found


@pytest.mark.parametrize("text", [APART, TOGETHER])
def test_predicates_that_ask_what_they_must(scanned: Callable[..., ScanResult], text: str) -> None:
    assert said_of(scanned, text) == {}


OPENS = "(\n        not should_use"
FLASHINFER = "if get_moe_a2a_backend().is_flashinfer()"
MERGES = "can_merge_post_experts_all_reduce"


@pytest.mark.parametrize(
    ("text", "edit", "wrong"),
    [
        # yes where nobody has summed: any launch shows it
        (APART, ("return a2a.is_flashinfer() or", "return not a2a.is_flashinfer() or"), (DONE, "")),
        (APART, ("if get_parallel().dwdp_size > 1", "if True"), (DONE, "")),
        (
            APART,
            ("if get_parallel().dwdp_size > 1", "if get_parallel().dwdp_size == 1"),
            (DONE, ""),
        ),
        (APART, (f"return {OPENS}", f"return not {OPENS}"), (BY_TOKENS, "")),
        (APART, ("return should_skip_mlp_all_reduce() or", "return not True or not"), (BOTH, "")),
        (TOGETHER, ("if is_tp_path and should", "if not should"), (BOTH, "")),
        (TOGETHER, ("return False", "return 1 == 1"), (BOTH, "")),
        # no where somebody has: only what sums there
        (APART, ("return should_skip_mlp_all_reduce() or", "return False or"), (BOTH, "")),
        (TOGETHER, (FLASHINFER, f"{FLASHINFER} and False"), (BOTH, BACKEND)),
        (
            APART,
            ("> 1 and get_parallel().moe_dp_size == 1", "> 1 and True"),
            (MERGES, "copies"),
        ),
    ],
)
def test_predicates_that_do_not(
    scanned: Callable[..., ScanResult],
    sample: Any,
    text: str,
    edit: tuple[str, str],
    wrong: tuple[str, str],
) -> None:
    function, needs = wrong
    found = said_of(scanned, sample.changed(text, *edit))
    assert function in found
    said = " ".join(found[function].needs)
    assert needs in said if needs else not said
