"""Which kernels a layer runs on: plain torch, or flashinfer's where device and package allow.

flashinfer (0.6.7.post3 is the release these calls were written for) compiles its kernels when they
are first used; a test reads the release's source and checks every function and argument used here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from gpu_tests.block import MoEBlock, Shard
from gpu_tests.ranks import Group, Ranks
from gpu_tests.specs import EPSILON

# compute capability 9: Hopper
OLDEST_ARCHITECTURE = 9
# rows of the fused all-reduce's workspace; upstream fuses up to this many
WORKSPACE_ROWS = 2048

Routed = Callable[[Tensor, Tensor, Tensor], Tensor]


def why_no_flashinfer(device: torch.device) -> str:
    """Why flashinfer's kernels cannot be used on `device`; empty when they can."""
    if device.type != "cuda":
        return f"no GPU: flashinfer needs one, these ranks run on {device.type}"
    major, minor = torch.cuda.get_device_capability(device)
    if major < OLDEST_ARCHITECTURE:
        return f"the GPU's compute capability is {major}.{minor}, the kernels need 9.0"
    if find_spec("flashinfer") is None:
        return "flashinfer is not installed"
    return ""


def flashinfer_experts(block: MoEBlock, shard: Shard) -> Routed:
    """`block.routed` by flashinfer's fused MoE: same arguments, same partial sums."""
    fused = import_module("flashinfer.fused_moe").cutlass_fused_moe
    # its first projection is up above gate
    first = torch.cat([block.up, block.gate], 1).contiguous()

    def routed(x: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        if not len(x):
            return torch.zeros_like(x)
        scales = weights.float()
        if block.spec.weight_on_input:
            x, scales = (x * scales).to(x.dtype), torch.ones_like(scales)
        out: Tensor | list[Tensor] = fused(
            # the kernel asks for no strides: a part of wider rows would be read as if it were whole
            input=x.contiguous(),
            token_selected_experts=ids.int().contiguous(),
            token_final_scales=scales.contiguous(),
            fc1_expert_weights=first,
            fc2_expert_weights=block.down,
            output_dtype=x.dtype,
            quant_scales=[],
            tp_size=shard.tp_size,
            tp_rank=shard.tp_rank,
            ep_size=shard.ep_size,
            ep_rank=shard.ep_rank,
        )
        return out[0] if isinstance(out, list) else out

    return routed


@dataclass(kw_only=True)
class FusedNorm:
    """The all-reduce + residual add + RMSNorm kernel over all ranks, with its workspace.

    `calls` counts how often it ran on this rank.
    """

    ranks: Ranks
    calls: int = 0
    _workspaces: dict[tuple[int, torch.dtype], Any] = field(default_factory=dict)

    def covers(self, group: Group) -> bool:
        """Whether the kernel does this sum. Sub-groups would each need a workspace of their own."""
        return 1 < len(group) == self.ranks.size

    def fits(self, out: Tensor) -> bool:
        """Whether the workspace has room for `out` [rows, H]."""
        return len(out) <= WORKSPACE_ROWS

    def __call__(self, out: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The normed sum and the sum, both [rows, H]."""
        comm = import_module("flashinfer.comm")
        self.ranks.call(f"fused all-reduce + norm of {list(out.shape)}")
        self.calls += 1
        normed, total = torch.empty_like(out), torch.empty_like(residual)
        comm.allreduce_fusion(
            input=out.contiguous(),
            workspace=self._workspace(out),
            pattern=comm.AllReduceFusionPattern.kARResidualRMSNorm,
            launch_with_pdl=True,
            residual_out=total,
            norm_out=normed,
            residual_in=residual.contiguous(),
            rms_gamma=weight,
            rms_eps=EPSILON,
        )
        return normed, total

    def _workspace(self, out: Tensor) -> Any:
        key = (out.shape[1], out.dtype)
        if key not in self._workspaces:
            self._workspaces[key] = import_module(
                "flashinfer.comm"
            ).create_allreduce_fusion_workspace(
                # without NVLink multicast
                backend="trtllm",
                world_size=self.ranks.size,
                rank=self.ranks.rank,
                max_token_num=WORKSPACE_ROWS,
                hidden_dim=out.shape[1],
                dtype=out.dtype,
            )
        return self._workspaces[key]


@lru_cache(maxsize=1)
def fused_norm(ranks: Ranks) -> FusedNorm:
    """The kernel for these ranks; workspaces are shared memory, so one object keeps them all."""
    return FusedNorm(ranks=ranks)


def sum_and_norm(
    fused: FusedNorm, out: Tensor, residual: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """The fused step on values and on witness columns: normed [rows, H], total [rows, H + counts].

    The kernel norms whole rows, so the columns that count go through it in runs of H of their own,
    against a residual of zeros.
    """
    width = residual.shape[1]
    normed, values = fused(out[:, :width], residual, weight)
    zeros, ones = torch.zeros_like(residual), torch.ones_like(weight)
    parts = [values]
    for start in range(width, out.shape[1], width):
        columns = out[:, start : start + width]
        padded = torch.nn.functional.pad(columns, (0, width - columns.shape[1]))
        parts.append(fused(padded, zeros, ones)[1][:, : columns.shape[1]])
    return normed, torch.cat(parts, 1)
