"""For `serve --patch`: SGLang 0.5.17 takes its fused all-reduce + residual + RMSNorm on CPU ranks.

The kernel is replaced by its arithmetic: a sum over the group that the release hands it, then the
residual, then the norm. Where the release asks for it is as it stands, but for the question whether
this machine has a Hopper or Blackwell GPU.
"""

import torch
from sglang.srt.distributed import parallel_state
from sglang.srt.layers import communicator, flashinfer_comm_fusion
from sglang.srt.layers.dp_attention import is_dp_attention_enabled
from sglang.srt.runtime_context import get_parallel


def fused(input_tensor, residual, weight, eps, use_attn_tp_group=True, **sizes):
    """As `flashinfer_allreduce_residual_rmsnorm` chooses its group: (normed, new residual)."""
    if use_attn_tp_group:
        group = parallel_state.get_attn_tp_group()
    elif get_parallel().moe_ep_size > 1:
        group = parallel_state.get_moe_ep_group()
    else:
        group = parallel_state.get_moe_tp_group()
    summed = group.all_reduce(input_tensor.clone()) + residual
    spread = torch.rsqrt(summed.float().pow(2).mean(-1, keepdim=True) + eps)
    return (summed.float() * spread).to(summed.dtype) * weight, summed


def fuses(batch_size):
    """`apply_flashinfer_allreduce_fusion` but for the machine."""
    return batch_size > 0 and not is_dp_attention_enabled()


flashinfer_comm_fusion.flashinfer_allreduce_residual_rmsnorm = fused
communicator.apply_flashinfer_allreduce_fusion = fuses
