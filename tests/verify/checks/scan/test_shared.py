"""Shared decision code that does what the scan takes it to do, and the same code broken."""

import ast
from collections.abc import Callable
from typing import Any

import pytest

from verify.checks.scan.command import report
from verify.checks.scan.paths import TooManyWaysError, ways
from verify.checks.scan.scan import ScanResult

ATTENTION = """
def attn_tp_all_reduce(input):
    return get_attention_tp_group().all_reduce(input)


def _dp_gather_via_all_reduce(global_tokens, local_tokens, batch, is_partial):
    writes = is_partial or get_attention_tp_rank() == 0
    if local_tokens.shape[0] > 0 and writes:
        memcpy_triton(global_tokens, local_tokens)
    if not local_tokens.dtype.is_floating_point:
        inplace_all_reduce(global_tokens)
    else:
        global_tokens[:] = tensor_model_parallel_all_reduce(global_tokens)
"""
COMMUNICATOR = """
def apply_flashinfer_allreduce_fusion(batch_size):
    return _is_flashinfer_available and batch_size > 0 and not is_dp_attention_enabled()


class LayerCommunicator:
    def __init__(self, last):
        self.is_last_layer = last

    def should_fuse_mlp_allreduce_with_next_layer(self, batch):
        if batch.is_empty():
            return False
        return apply_flashinfer_allreduce_fusion(batch) and not self.is_last_layer


class CommunicateWithAllReduceAndLayerNormFn:
    @staticmethod
    def _gather_hidden_states_and_residual(hidden_states, residual, batch, layernorm, context):
        if context.attn_dp_size != 1:
            if hidden_states.shape[0] != 0:
                hidden_states, residual = layernorm(hidden_states, residual)
            dp_gather_partial(buffer, hidden_states, batch)
        else:
            handled = False
            if apply_flashinfer_allreduce_fusion(1) and hasattr(layernorm, "fused"):
                hidden_states = layernorm.forward_with_allreduce_fusion(hidden_states)
                handled = True
            if not handled:
                if quantized:
                    hidden_states = attention_tensor_model_parallel_quant_all_reduce(hidden_states)
                else:
                    hidden_states = attention_tensor_model_parallel_all_reduce(hidden_states)
                hidden_states = layernorm(hidden_states)
        return hidden_states, residual


class CommunicateSummableTensorPairFn:
    @staticmethod
    def _scatter_hidden_states(hidden_states, residual, batch, context):
        if batch.is_max_len():
            dp_reduce_scatter_tensor(hidden_states, buffer)
        else:
            dp_scatter(hidden_states, buffer, batch)
        return hidden_states, residual
"""
BOUNDARY = """
class ExitPolicy:
    def _complete_now(self, hidden_states, *, owes_sum, steps):
        if owes_sum and steps.sum_impl is not None:
            hidden_states = steps.sum_impl.run(hidden_states)
        elif owes_sum:
            hidden_states = sum_output(hidden_states)
        return hidden_states
"""
FILES = {
    "layers/dp_attention.py": ATTENTION,
    "layers/communicator.py": COMMUNICATOR,
    "layers/layer_boundary/exit.py": BOUNDARY,
}
SUM = "attention_tensor_model_parallel_all_reduce(hidden_states)"


def found(scanned: Callable[..., ScanResult], files: dict[str, str]) -> list[tuple[str, ...]]:
    findings = scanned("", library=files).findings
    return sorted({(one.rule, one.method or "") for one in findings})


def test_code_that_keeps_its_duties(scanned: Callable[..., ScanResult]) -> None:
    assert found(scanned, FILES) == []
    assert found(scanned, dict.fromkeys(FILES, "")) == []


GATHER = "_gather_hidden_states_and_residual"
DP_GATHER = "_dp_gather_via_all_reduce"
SCATTER = "_scatter_hidden_states"
APPLIES = "apply_flashinfer_allreduce_fusion"
TWICE = ("reduced-twice", "attn_tp_all_reduce")
DP = "is_dp_attention_enabled()"
FUSES = "should_fuse_mlp_allreduce_with_next_layer"


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        # sums removed
        ("get_attention_tp_group().all_reduce(input)", "input", ("lost-sum", "attn_tp_all_reduce")),
        ("tensor_model_parallel_all_reduce(global", "(global", ("lost-sum", DP_GATHER)),
        (SUM, "hidden_states", ("lost-sum", GATHER)),
        ("sum_output(hidden_states)", "hidden_states", ("lost-sum", "_complete_now")),
        ("dp_scatter(hidden_states, buffer, batch)", "pass", ("lost-sum", SCATTER)),
        # ... made twice
        ("().all_reduce(input)", "().all_reduce(one.all_reduce(input))", TWICE),
        (f"= {SUM}", f"= {SUM.replace('hidden_states', SUM)}", ("reduced-twice", GATHER)),
        ("                handled = True\n", "", ("reduced-twice", GATHER)),
        # ... left to a kernel that nobody asked, or over the experts' ranks
        ("apply_flashinfer_allreduce_fusion(1) and ", "", ("lost-sum", GATHER)),
        (f"= {SUM}", "= moe_tensor_model_parallel_all_reduce(hidden_states)", ("lost-sum", GATHER)),
        # who may put a copy there
        ("is_partial or get_attention_tp_rank() == 0", "True", ("replicated-addend", DP_GATHER)),
        ("> 0 and writes", "> 0 and False", ("lost-sum", DP_GATHER)),
        # what yes means
        (" and not self.is_last_layer", "", ("lost-past-end", FUSES)),
        ("not self.is_last_layer", "self.is_last_layer", ("lost-past-end", FUSES)),
        (
            "and not is_dp_attention_enabled()",
            "or is_dp_attention_enabled()",
            ("lost-sum", APPLIES),
        ),
        ("return _is_flash", "return not _is_flash", ("lost-sum", APPLIES)),
    ],
)
def test_code_that_does_not(
    scanned: Callable[..., ScanResult], sample: Any, old: str, new: str, wrong: tuple[str, str]
) -> None:
    (name,) = (name for name, text in FILES.items() if old in text)
    assert wrong in found(scanned, {**FILES, name: sample.changed(FILES[name], old, new)})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # the same ranks where the branch is taken
        (SUM, "tensor_model_parallel_all_reduce(hidden_states)"),
        # nothing to sum where there is one rank, or no row
        (f"= {SUM}", f"= {SUM} if context.attn_tp_size > 1 else hidden_states"),
        ("if context.attn_dp", "if hidden_states.shape[0] != 0 and context.attn_dp"),
    ],
)
def test_other_code_that_keeps_them(
    scanned: Callable[..., ScanResult], sample: Any, old: str, new: str
) -> None:
    name = "layers/communicator.py"
    assert found(scanned, {**FILES, name: sample.changed(COMMUNICATOR, old, new)}) == []


def test_function_with_more_ways_than_are_followed(scanned: Callable[..., ScanResult]) -> None:
    body = "".join(f"    if c{n}:\n        pass\n" for n in range(14))
    text = f"def attn_tp_all_reduce(input):\n{body}    return input\n"
    (function,) = ast.parse(text).body
    assert isinstance(function, ast.FunctionDef)
    with pytest.raises(TooManyWaysError):
        ways(function)
    result = scanned("", library={**FILES, "layers/dp_attention.py": text})
    assert result.findings == ()
    (line,) = result.unread
    assert "dp_attention.py:1: attn_tp_all_reduce has more ways" in line
    (said,) = (one for one in report(result).findings if one.rule == "not-analysed")
    assert said.file == "sglang/srt/layers/dp_attention.py"
    assert said.line == 1


def test_condition_met_twice_is_the_same() -> None:
    text = "def f(a):\n    if a:\n        one()\n    if not a:\n        two()\n    return a and b\n"
    (function,) = ast.parse(text).body
    assert isinstance(function, ast.FunctionDef)
    found = {tuple(call.name for call in way.calls): way.answer for way in ways(function)}
    assert set(found) == {("one",), ("two",)}
    assert found[("two",)] is False
