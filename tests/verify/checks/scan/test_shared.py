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


def _dp_gather_via_all_gather(global_tokens, local_tokens, batch, is_partial):
    if get_attention_tp_size() == 1:
        get_tp_group().all_gather_into_tensor(global_tokens, local_tokens)
        return
    if not is_partial:
        if get_attention_tp_rank() != 0:
            local_tokens.fill_(0)
    get_attention_tp_group().reduce_scatter_tensor(mine, local_tokens)
    get_tp_group().all_gather_into_tensor(global_tokens, mine)


def dp_gather_partial(global_tokens, local_tokens, batch):
    _dp_gather(global_tokens, local_tokens, batch, is_partial=True)


def _dp_gather_via_all_reduce(global_tokens, local_tokens, batch, is_partial):
    writes = is_partial or get_attention_tp_rank() == 0
    if local_tokens.shape[0] > 0 and writes:
        memcpy_triton(global_tokens, local_tokens)
    if not local_tokens.dtype.is_floating_point:
        inplace_all_reduce(global_tokens, group_name=get_tp_group().unique_name)
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
        if residual_input_mode == ScatterMode.SCATTERED and context.attn_tp_size > 1:
            attn_tp_all_gather_into_tensor(residual, mine)
        if context.attn_dp_size != 1:
            before = context.attn_tp_size == 1
            if before and hidden_states.shape[0] != 0:
                hidden_states, residual = layernorm(hidden_states, residual)
            elif context.attn_tp_rank == 0:
                hidden_states += residual
            dp_gather_partial(buffer, hidden_states, batch)
            if not before:
                dp_scatter(residual, buffer, batch)
                if hidden_states.shape[0] != 0:
                    hidden_states = layernorm(hidden_states)
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


class LayerScatterModes:
    @classmethod
    def _compute_mlp_mode(cls, context):
        if context.is_layer_sparse:
            return ScatterMode.FULL
        return ScatterMode.SCATTERED if enable_moe_dense_fully_dp() else ScatterMode.FULL


class CommunicateContext:
    def is_same_group_size(self, a, b):
        return self.process_group_sizes[a] == self.process_group_sizes[b]


class CommunicateSummableTensorPairFn:
    @staticmethod
    def get_fn(hidden_states_input_mode, residual_input_mode, output_mode, context):
        if context.is_same_group_size(
            hidden_states_input_mode, output_mode
        ) and context.is_same_group_size(residual_input_mode, output_mode):
            return CommunicateSummableTensorPairFn._trivial
        return CommunicateSummableTensorPairFn._scatter_hidden_states

    @staticmethod
    def _scatter_hidden_states(hidden_states, residual, batch, context, allow_reduce_scatter):
        if allow_reduce_scatter and batch.is_max_len():
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
        if steps.returns_over_dp:
            hidden_states = to_dp_local(hidden_states)
        else:
            hidden_states = output_move(hidden_states)
        return hidden_states

    def _decide(self, steps, *, sum_in_reduce_scatter):
        return partial(
            self._complete_now,
            owes_sum=steps.output.group is not None and not sum_in_reduce_scatter,
        )
"""
OPS = """
def sum_output(hidden_states, group):
    if group is SumGroup.ATTN_TP:
        if parallel.attn_tp_size == 1:
            return hidden_states
        return attn_tp_all_reduce(hidden_states)
    if group is SumGroup.TP:
        return tensor_model_parallel_all_reduce(hidden_states)
    if group is SumGroup.MOE_OUTPUT:
        return sum_post_experts_output(hidden_states)
    raise ValueError(group)
"""
EXPERTS = """
def sum_post_experts_output(hidden_states):
    parallel = get_parallel()
    return _post_experts_sum(
        hidden_states,
        reduce_ep=parallel.moe_ep_size > 1 and not post_experts_output_is_complete(),
        reduce_tp=parallel.moe_tp_size > 1 and not post_experts_output_is_complete(),
    )


def _post_experts_sum(hidden_states, *, reduce_ep, reduce_tp):
    if reduce_ep and reduce_tp and can_merge_post_experts_all_reduce():
        return tensor_model_parallel_all_reduce(hidden_states)
    if reduce_ep:
        hidden_states = moe_expert_parallel_all_reduce(hidden_states)
    if reduce_tp:
        hidden_states = moe_tensor_model_parallel_all_reduce(hidden_states)
    return hidden_states
"""
FILES = {
    "layers/dp_attention.py": ATTENTION,
    "layers/communicator.py": COMMUNICATOR,
    "layers/layer_boundary/exit.py": BOUNDARY,
    "layers/layer_boundary/ops.py": OPS,
    "layers/moe/utils.py": EXPERTS,
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
GATHERED = "_dp_gather_via_all_gather"
MODE = "_compute_mlp_mode"
OUTPUT = ("lost-sum", "sum_output")
EXPERT = ("lost-sum", "sum_post_experts_output")
ALIKE = "self.process_group_sizes[a] == self.process_group_sizes[b]"
OWN = "get_attention_tp_group()"
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
        # whose copy counts, and where rows are cut
        ("if not is_partial:", "if is_partial:", ("lost-sum", GATHERED)),
        ("get_attention_tp_size() == 1", "True", ("lost-sum", GATHERED)),
        ("get_tp_group().all_gather_into_tensor", f"{OWN}.all_gather", ("lost-sum", GATHERED)),
        ("is_partial=True", "is_partial=False", ("lost-sum", "dp_gather_partial")),
        ("elif context.attn_tp_rank == 0", "elif False", ("lost-sum", GATHER)),
        ("elif context.attn_tp_rank == 0", "elif True", ("replicated-addend", GATHER)),
        ("            if not before:", "            if before:", ("lost-sum", GATHER)),
        # whose rows, and who moves them
        ("if context.is_layer_sparse", "if True", ("sums-local-rows", MODE)),
        ("SCATTERED if enable", "SCATTERED if not enable", ("sums-local-rows", MODE)),
        ("and context.is_same", "or context.is_same", ("lost-sum", "get_fn")),
        ("allow_reduce_scatter and batch", "batch", ("reduced-twice", SCATTER)),
        ("and batch.is_max_len()", "and not batch.is_max_len()", ("reduced-twice", SCATTER)),
        # the sum that is asked for
        ("if steps.returns_over_dp", "if not steps.returns_over_dp", ("lost-sum", "_complete_now")),
        ("and not sum_in_reduce", "and sum_in_reduce", ("lost-sum", "_decide")),
        ("elif owes_sum", "elif True", ("lost-sum", "_complete_now")),
        ("group is SumGroup.ATTN_TP", "group is not SumGroup.ATTN_TP", ("lost-sum", "sum_output")),
        ("return sum_post_experts_output(hidden_states)", "return hidden_states", OUTPUT),
        ("reduce_tp=parallel.moe_tp_size > 1 and not", "reduce_tp=False and not", EXPERT),
        ("ep_size > 1 and not", "ep_size > 1 and", EXPERT),
        ("return _post_experts_sum(", "return (lambda x, **_: x)(", EXPERT),
        ("if reduce_tp:", "if reduce_ep:", ("lost-sum", "_post_experts_sum")),
        (
            "all_reduce():\n        return tensor_model_parallel_all_reduce(",
            "all_reduce():\n        return (",
            ("lost-sum", "_post_experts_sum"),
        ),
        # what a comparison in other words must not hide
        ("group is SumGroup.TP:", "not group is SumGroup.TP:", ("lost-sum", "sum_output")),
        (
            "return ScatterMode.FULL\n        return",
            "return ScatterMode.MOE_FULL\n        return",
            ("sums-local-rows", "_compute_mlp_mode"),
        ),
        # what yes means
        (" and not self.is_last_layer", "", ("lost-past-end", FUSES)),
        ("not self.is_last_layer", "self.is_last_layer", ("lost-past-end", FUSES)),
        (
            "and not is_dp_attention_enabled()",
            "or is_dp_attention_enabled()",
            ("lost-sum", APPLIES),
        ),
        # also where nothing is left of what it asked
        (f"return {ALIKE}", "return True", ("lost-sum", "is_same_group_size")),
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
    ],
)
def test_other_code_that_keeps_them(
    scanned: Callable[..., ScanResult], sample: Any, old: str, new: str
) -> None:
    name = "layers/communicator.py"
    assert found(scanned, {**FILES, name: sample.changed(COMMUNICATOR, old, new)}) == []


def test_condition_is_said_as_it_is_written(
    scanned: Callable[..., ScanResult], sample: Any
) -> None:
    name = "layers/communicator.py"
    broken = sample.changed(COMMUNICATOR, "elif context.attn_tp_rank == 0", "elif True")
    messages = [one.message for one in scanned("", library={**FILES, name: broken}).findings]
    said = "also where not rank() == 0 is True or rank() != 0 is False"
    assert f"{GATHER} makes the call hidden_states += residual {said}" in messages


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


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tp_size > 1", "tp_size == 1"),
        ("x.shape[0] == 0", "x.shape[0] > 0"),
        ("group is None", "group is not None"),
        ("group is SumGroup.TP", "group is SumGroup.ATTN_TP"),
    ],
)
def test_way_that_contradicts_itself_is_none(one: str, other: str) -> None:
    text = f"def f(x):\n    if {one}:\n        one()\n    if {other}:\n        two()\n"
    (function,) = ast.parse(text).body
    assert isinstance(function, ast.FunctionDef)
    assert ("one", "two") not in {tuple(call.name for call in way.calls) for way in ways(function)}


def test_number_that_is_not_the_least_contradicts_nothing() -> None:
    text = (
        "def f(x):\n    if x.tp_size > 2:\n        one()\n    if x.tp_size != 2:\n        two()\n"
    )
    (function,) = ast.parse(text).body
    assert isinstance(function, ast.FunctionDef)
    found = {tuple(call.name for call in way.calls) for way in ways(function)}
    assert {(), ("one",), ("two",), ("one", "two")} == found


NORM_SUMMED = """if apply_flashinfer_allreduce_fusion(1) and hasattr(layernorm, "fused"):
                hidden_states = layernorm.forward_with_allreduce_fusion(hidden_states)
                handled = True
            if not handled:"""
OTHER_SUMMED = NORM_SUMMED.replace("flashinfer_allreduce", "aiter_all_reduce").replace(
    "if not handled", "if True"
)


@pytest.mark.parametrize(
    ("old", "new", "needs"),
    [
        ("residual_input_mode == ScatterMode.SCATTERED and", "False and", "rows cut over"),
        ("allow_reduce_scatter and batch.is_max_len()", "batch.is_max_len()", "does not allow"),
        # also where it is allowed: batches of another padding show it
        ("allow_reduce_scatter and batch.is_max_len()", "True", ""),
        (f"hidden_states = {SUM}", "pass", ""),
        # left to the next layer for want of a kernel, too
        (" and not self.is_last_layer", " and True", "fused all-reduce's kernels"),
        (f"{APPLIES}(batch) and not self", f"not {APPLIES}(batch) or self", ""),
        # what a fused norm has summed is summed again: only where there is one
        (NORM_SUMMED, OTHER_SUMMED, "fused all-reduce's kernels"),
    ],
)
def test_broken_duty_says_what_it_takes_to_show(
    scanned: Callable[..., ScanResult], sample: Any, old: str, new: str, needs: str
) -> None:
    name = "layers/communicator.py"
    broken = {**FILES, name: sample.changed(COMMUNICATOR, old, new)}
    found = scanned("", library=broken).findings
    assert found
    said = [" ".join(one.needs) for one in found]
    assert all(needs in each for each in said) if needs else "" in said
