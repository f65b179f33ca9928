"""What flashinfer's kernels are given, with stand-ins that compute by the kernels' definitions."""

import sys
from types import ModuleType

import pytest
import torch

from gpu_tests import kernels
from gpu_tests.block import MoEBlock, Shard, whole_weights
from gpu_tests.cases import Kernels
from gpu_tests.ranks import Ranks
from gpu_tests.specs import EPSILON, SPECS


def silent(_: str) -> None:
    pass


RANKS = Ranks(rank=0, size=2, device=torch.device("cpu"), say=silent, call=silent)


def fused_by_definition(
    *,
    input,
    token_selected_experts,
    token_final_scales,
    fc1_expert_weights,
    fc2_expert_weights,
    output_dtype,
    quant_scales,
    tp_size,
    tp_rank,
    ep_size,
    ep_rank,
):
    """Token by token: the first projection's halves are up and gate, experts are global numbers."""
    assert quant_scales == []
    # the kernel asks for no strides (seen with 0.6.15.post1: wrong values, no error)
    for tensor in (input, token_selected_experts, token_final_scales):
        assert tensor.is_contiguous()
    assert 0 <= tp_rank < tp_size
    assert token_selected_experts.dtype == torch.int32
    assert token_final_scales.dtype == torch.float32
    local = len(fc1_expert_weights)
    out = torch.zeros(len(input), fc2_expert_weights.shape[1], dtype=output_dtype)
    for row, (experts, scales) in enumerate(
        zip(token_selected_experts.tolist(), token_final_scales.tolist(), strict=True)
    ):
        for expert, scale in zip(experts, scales, strict=True):
            if expert // local == ep_rank:
                up, gate = fc1_expert_weights[expert % local].chunk(2)
                inner = torch.nn.functional.silu(gate @ input[row]) * (up @ input[row])
                out[row] += scale * (fc2_expert_weights[expert % local] @ inner)
    assert ep_rank < ep_size
    return [out]


@pytest.fixture
def flashinfer(monkeypatch):
    module = ModuleType("flashinfer.fused_moe")
    module.cutlass_fused_moe = fused_by_definition
    monkeypatch.setitem(sys.modules, "flashinfer", ModuleType("flashinfer"))
    monkeypatch.setitem(sys.modules, "flashinfer.fused_moe", module)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize(("ep", "tp"), [(1, 1), (2, 2)])
def test_flashinfer_is_asked_for_the_same_partial_sums(flashinfer, spec, ep, tp):
    x = torch.randn(3, spec.hidden, generator=torch.Generator().manual_seed(5))
    for rank in range(ep * tp):
        shard = Shard(ep_rank=rank // tp, ep_size=ep, tp_rank=rank % tp, tp_size=tp)
        block = MoEBlock(spec, whole_weights(spec).to(torch.float32), shard)
        choice = block.choose(x)
        routed = kernels.flashinfer_experts(block, shard)
        expected = block.routed(x, choice.ids, choice.weights)
        torch.testing.assert_close(routed(x, choice.ids, choice.weights), expected)
        parts = [columns_of_wider_rows(each) for each in (x, choice.ids, choice.weights)]
        torch.testing.assert_close(routed(*parts), expected)
        nothing = x[:0]
        assert routed(nothing, choice.ids[:0], choice.weights[:0]).shape == nothing.shape


def columns_of_wider_rows(tensor):
    """The same values as a dispatcher's buffer holds them: columns of rows that go on."""
    return torch.cat([tensor, torch.zeros_like(tensor)], 1)[:, : tensor.shape[1]]


def test_counting_columns_go_through_the_fused_kernel_unnormed():
    calls = []

    def fused(out, residual, weight):
        calls.append(out.shape)
        total = 2 * out + residual
        return torch.nn.functional.rms_norm(total, weight.shape, weight, EPSILON), total

    values, counts = torch.randn(3, 8), torch.arange(3 * 11.0).view(3, 11)
    residual, weight = torch.randn(3, 8), torch.rand(8)
    normed, total = kernels.sum_and_norm(fused, torch.cat([values, counts], 1), residual, weight)
    assert calls == [(3, 8)] * 3
    torch.testing.assert_close(total, torch.cat([2 * values + residual, 2 * counts], 1))
    torch.testing.assert_close(
        normed, torch.nn.functional.rms_norm(2 * values + residual, (8,), weight, EPSILON)
    )


def test_the_fused_kernel_is_for_all_ranks_only():
    fused = kernels.fused_norm(RANKS)
    assert fused.covers((0, 1))
    assert not fused.covers((0,))
    assert fused.fits(torch.zeros(kernels.WORKSPACE_ROWS, 1))
    assert not fused.fits(torch.zeros(kernels.WORKSPACE_ROWS + 1, 1))


def test_why_not_is_said(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert kernels.why_no_flashinfer(cpu).startswith("no GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    assert kernels.why_no_flashinfer(gpu) == (
        "the GPU's compute capability is 8.0, the kernels need 9.0"
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(kernels, "find_spec", lambda _: None)
    assert kernels.why_no_flashinfer(gpu) == "flashinfer is not installed"
    monkeypatch.setattr(kernels, "find_spec", lambda _: object())
    assert kernels.why_no_flashinfer(gpu) == ""


def test_float32_stays_on_torch():
    fused = Kernels(norm="flashinfer")
    assert fused.taking("float32") == Kernels()
    assert fused.taking("bfloat16") == fused
    assert Kernels().taking("bfloat16") == Kernels()
