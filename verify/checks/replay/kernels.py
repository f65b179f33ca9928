"""What kernels compute, in plain torch: the parts of a release that have no CPU version."""

from types import SimpleNamespace
from typing import Any

import torch

from verify.emulator.groups import ProcessGroup
from verify.emulator.ranks import current_rank


def memcpy(dst: torch.Tensor, src: torch.Tensor, *layout: Any) -> None:
    """Copy rows; `layout` is (dimension 0, where rows start, how many, start is in the source)."""
    _, offset, size, offset_in_source = layout
    start, rows = int(offset), int(size)
    room = (len(src) - start, len(dst)) if offset_in_source else (len(dst) - start,)
    rows = min(rows, *room)
    if offset_in_source:
        dst[:rows] = src[start : start + rows]
    else:
        dst[start : start + rows] = src[:rows]


def allreduce_fusion_kernels(*, stage_size: int) -> dict[str, Any]:
    """flashinfer's fused all-reduce + residual add + norm, over the group its workspace is for.

    Without a group of its own that is taken to be the `stage_size` ranks of a pipeline stage.
    """

    def workspace(world_size: int, group: ProcessGroup | None) -> SimpleNamespace:
        first = current_rank().rank // stage_size * stage_size
        ranks = tuple(range(first, first + stage_size)) if group is None else group.ranks
        if len(ranks) != world_size:
            raise ValueError(f"workspace for {world_size} ranks over {ranks}")
        return SimpleNamespace(
            ranks=ranks,
            backend="imitated",
            is_buffer_size_sufficient=lambda **sizes: True,
            destroy=lambda: None,
        )

    # releases look for the parameter's name
    def create_workspace(
        *args: Any, world_size: int, comm_backend: Any = None, **options: Any
    ) -> SimpleNamespace:
        return workspace(world_size, comm_backend and comm_backend.group)

    def create_handles(
        rank: int, world_size: int, *sizes: int, **options: Any
    ) -> tuple[tuple[()], SimpleNamespace]:
        return (), workspace(world_size, None)

    def fuse(**call: Any) -> None:
        total = current_rank().all_reduce(call["input"], group=call["workspace"].ranks)
        call["residual_out"].copy_(total + call["residual_in"])
        call["norm_out"].copy_(call["residual_out"])

    def fuse_by_pointers(**call: Any) -> None:
        fuse(input=call["allreduce_in"], workspace=call["workspace_ptrs"], **call)

    return {
        "flashinfer.comm.create_allreduce_fusion_workspace": create_workspace,
        "flashinfer.comm.allreduce_fusion": fuse,
        # until 0.5.9
        "flashinfer.comm.trtllm_create_ipc_workspace_for_all_reduce_fusion": create_handles,
        "flashinfer.comm.trtllm_allreduce_fusion": fuse_by_pointers,
        "flashinfer.comm.AllReduceFusionPattern": SimpleNamespace(kARResidualRMSNorm=1),
        "flashinfer.comm.mnnvl.TorchDistBackend": _Backend,
        "_preflight_check_workspace_memory": lambda **sizes: True,
    }


def fp4_kernels() -> dict[str, Any]:
    """flashinfer's FP4 quantisation: shapes and the tokens' marks, all that experts read."""

    def quantize(*args: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        given = (*args, *options.values())
        x = next(t for t in given if isinstance(t, torch.Tensor) and t.dim() == 2)
        tokens, width = x.shape
        packed = torch.zeros((tokens, width // 2), dtype=torch.uint8)
        packed[:, 0] = x[:, 0].to(torch.uint8)
        return packed, torch.zeros((tokens, width // 16), dtype=torch.uint8)

    return {
        "flashinfer.fp4_quantize": quantize,
        "flashinfer.nvfp4_block_scale_interleave": lambda scales: scales,
    }


def elementwise() -> dict[str, Any]:
    """Small fused kernels, under the names of the functions that launch them."""

    def activate(x: torch.Tensor, output: torch.Tensor, limit: float) -> None:
        output.copy_(x[..., : output.shape[-1]])

    def mix(hidden: torch.Tensor, earlier: torch.Tensor, count: int, *args: Any) -> torch.Tensor:
        # every score is zero, so that all that is mixed weighs alike
        return (hidden + earlier[:, :count].sum(dim=1)) / (count + 1)

    def split_gate(
        q_gate: torch.Tensor, k: torch.Tensor, *args: Any, has_gate: bool = True, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        if not has_gate:
            return q_gate, k, None
        query, gate = q_gate.chunk(2, dim=-1)
        return query, k, gate

    def gate_and_multiply(
        x: torch.Tensor, gate: torch.Tensor, shared: torch.Tensor, *added: torch.Tensor
    ) -> torch.Tensor:
        # the gate's logit is zero, as that of every linear without a witness
        gated = torch.sigmoid(torch.zeros((len(x), 1))) * shared
        return added[0].add_(gated) if added else gated

    return {
        "fused_sigmoid_mul": lambda x, gate, **options: x * torch.sigmoid(gate),
        "fused_gate_sigmoid_mul": gate_and_multiply,
        "fused_gate_sigmoid_mul_add": gate_and_multiply,
        "fused_rmsnorm": lambda x, *args, **options: x.clone(),
        "_rmsnorm_native": lambda x, *args, **options: x.clone(),
        "_mix_fused": mix,
        "fused_dual_residual_rmsnorm": lambda x, residual, *args, **options: (
            x + residual,
            x + residual,
        ),
        "silu_and_mul_clamp": activate,
        "fused_eh_norm": lambda x, previous, *args: torch.cat((x, previous), dim=-1),
        "fused_qk_gemma_rmsnorm_rope_gate": split_gate,
        "triton.next_power_of_2": lambda n: 1 << (int(n) - 1).bit_length(),
        "triton.cdiv": lambda a, b: -(-int(a) // int(b)),
    }


class _Backend:
    def __init__(self, group: ProcessGroup) -> None:
        self.group = group
