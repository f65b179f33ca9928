"""The only parts that are ours, by the name under which releases know them.

Whatever is not listed here is executed from the source, or is a stand-in whose value nothing may
rest on. No entry knows a model or a release.
"""

import json
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch

from verify.checks.replay import kernels
from verify.checks.replay.decoders import CORE_ATTENTION, RUNTIME
from verify.checks.replay.dispatch import AllToAll, dispatchers
from verify.checks.replay.model_config import PLAIN_MODEL
from verify.emulator.groups import GroupCoordinator
from verify.emulator.machine import COMPUTE_CAPABILITY
from verify.emulator.witness import HIDDEN_SIZE, Witness, embed, project

ABSENT = RUNTIME.absent

_TRUE = ("is_cuda", "is_cuda_alike", "is_flashinfer_available", "is_sm90_supported")
_FALSE = (
    *("is_hip", "is_npu", "is_xpu", "is_hpu", "is_musa", "is_mps", "is_cpu"),
    *("is_sm100_supported", "is_sm120_supported", "is_blackwell_supported", "is_blackwell"),
    *("is_gfx95_supported", "is_host_cpu_arm64", "is_nvidia_cublas_version_ge_12_9"),
    *("_use_tilelang_mhc_pre", "_use_tilelang_mhc_post", "is_cross_layer_mhc_fusion_enabled"),
    *("cpu_has_amx_support", "use_intel_amx_backend", "use_intel_xpu_backend"),
)

# until 0.5.5, whoever allocates in it marks what it allocated
_SYMMETRIC_MEMORY = SimpleNamespace(tag=lambda tensor: None)


def platform() -> dict[str, Any]:
    """Answers to what the release asks about its machine: CUDA, compute capability 9.0."""
    answers: dict[str, Any] = {name: _always(value=True) for name in _TRUE}
    answers |= {name: _always(value=False) for name in _FALSE}
    return answers | {
        "mambaish_config": _always(value=None),
        "model_config_of": _always(value=PLAIN_MODEL),
        "ModelConfig._parse_quant_hf_config": _always(value=None),
        "get_device_sm": _always(value=10 * COMPUTE_CAPABILITY[0] + COMPUTE_CAPABILITY[1]),
        "get_device_capability": _always(value=COMPUTE_CAPABILITY),
        "get_device_memory_capacity": _always(value=80 * 1024.0),
        "get_cuda_version": _always(value=(12, 8)),
    }


def arithmetic(witness: Witness, *, whole_experts: bool) -> dict[str, Any]:
    """Experts, linears and norms: what they contribute, not how they compute it.

    Norms add the residual and pass the sum on, so that counts stay counts. With `whole_experts`
    a rank has fetched the weights of all.
    """
    return {
        "UnquantizedFusedMoEMethod.apply": _experts_apply(witness, whole=whole_experts),
        "UnquantizedFusedMoEMethod.create_weights": _no_weights,
        "UnquantizedFusedMoEMethod.create_moe_runner": _nothing,
        "UnquantizedLinearMethod.apply": _linear_apply(witness),
        f"{RUNTIME.embedding}.forward": lambda module, ids, *args, **options: embed(ids),
        "zero_experts_compute_triton": _zero_experts(witness),
        "TopK.forward": _top_k,
        f"{CORE_ATTENTION}.forward": _attend,
        f"{RUNTIME.linear_attention}.forward": _attend_linearly,
        "*Norm.forward": _add_residual,
        "CustomOp.dispatch_forward": _native,
        "MultiPlatformOp.dispatch_forward": _native,
        "BaseFusedOp._resolve_forward_method": _native,
        "SiluAndMul.forward": _halve,
        "GeluAndMul.forward": _halve,
    }


def communication(*, stage_size: int) -> dict[str, Any]:
    """Groups' collectives, buffers, kernels that communicate; of stages of `stage_size` ranks."""
    return {
        "GroupCoordinator": GroupCoordinator,
        "in_the_same_node_as": lambda group, *args, **options: [True] * group.size(),
        "use_symmetric_memory": lambda *args, **options: nullcontext(_SYMMETRIC_MEMORY),
        "memcpy_triton": kernels.memcpy,
        "register_custom_op": _decorator,
        "register_custom_op_from_extern": _decorator,
        RUNTIME.decorator: _decorator,
        "direct_register_custom_op": lambda *args, **options: None,
        **dispatchers(),
        # no experts are moved or copied
        "ExpertLocationDispatchInfo.init_new": _always(value=None),
        **kernels.allreduce_fusion_kernels(stage_size=stage_size),
        **kernels.fp4_kernels(),
        **kernels.elementwise(),
        "orjson.loads": json.loads,
        "transformers.AutoConfig.from_pretrained": _always(value=PLAIN_MODEL.hf_config),
        "transformers.GenerationConfig.from_pretrained": _no_file,
        "transformers.PreTrainedModel": _PreTrainedModel,
    }


def _always(*, value: object) -> Callable[..., object]:
    return lambda *args, **options: value


def _no_file(*args: Any, **options: Any) -> None:
    raise OSError("no model files are here")


def _decorator(function: Any = None, **options: object) -> Any:
    return function if callable(function) else lambda decorated: decorated


def _add_residual(
    self: Any, x: torch.Tensor, residual: Any = None, post_residual_addition: Any = None
) -> Any:
    if residual is None:
        return x.clone()
    total = x + residual
    if post_residual_addition is not None:
        total = total + post_residual_addition
    return total.clone(), total


def _native(self: Any) -> Any:
    return self.forward_native


def _halve(self: Any, x: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
    return x[..., : x.shape[-1] // 2]


def _top_k(self: Any, hidden_states: torch.Tensor, *args: Any, **options: Any) -> Any:
    namespace = type(self).forward_native.__globals__
    tokens = hidden_states.shape[0]
    return namespace["StandardTopKOutput"](
        topk_weights=torch.ones((tokens, 1)),
        topk_ids=torch.zeros((tokens, 1), dtype=torch.int32),
        router_logits=torch.zeros((tokens, 1)),
    )


def _attend(self: Any, q: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
    """Attention that finds nothing."""
    return torch.zeros((len(q), self.tp_q_head_num * self.v_head_dim))


def _attend_linearly(self: Any, *args: Any, **options: Any) -> torch.Tensor:
    mixed = options["mixed_qkv"] if "mixed_qkv" in options else args[1]
    return torch.zeros((1, len(mixed), self.num_v_heads, self.head_v_dim))


def _linear_apply(witness: Witness) -> Callable[..., torch.Tensor]:
    def apply(self: Any, layer: Any, x: torch.Tensor, bias: Any = None) -> torch.Tensor:
        kind = type(layer).__name__
        if "RowParallel" in kind:
            shard, shards = _place(layer)
            # a layer that takes its share of whole rows sees their mark on one rank only
            marks = x[:, 0] if getattr(layer, "input_is_parallel", True) else None
            return witness.partial(
                layer, shard=shard, shards=shards, tokens=x.shape[0], marks=marks
            )
        width = layer.weight.shape[0]
        if "ColumnParallel" in kind and layer.output_size == HIDDEN_SIZE != width:
            shard, shards = _place(layer)
            return project(x, HIDDEN_SIZE).chunk(shards, dim=-1)[shard].contiguous()
        output = project(x, width)
        if "ColumnParallel" in kind and x.shape[-1] == HIDDEN_SIZE:
            # so that what follows, an activation and a row-parallel linear, knows its tokens
            output[:, 0] = x[:, 0]
        return output

    return apply


def _zero_experts(witness: Witness) -> Callable[..., torch.Tensor]:
    def compute(*args: Any, **options: Any) -> torch.Tensor:
        """Experts that pass tokens on: whole on every rank that computes them."""
        hidden = options["hidden_states"] if "hidden_states" in options else args[-1]
        return witness.whole("zero experts", marks=hidden[:, 0])

    return compute


class _PreTrainedModel(torch.nn.Module):
    """The base of models in transformers, as far as inference needs it."""

    def __init__(self, config: Any = None, *args: Any, **options: Any) -> None:
        super().__init__()
        self.config = config

    def post_init(self) -> None:
        """A hook with nothing to do."""


def _place(layer: Any) -> tuple[int, int]:
    """Which shard of a linear's input this rank has, and of how many."""
    if hasattr(layer, "tp_rank"):
        return layer.tp_rank, layer.tp_size
    rank, size = type(layer).forward.__globals__["get_group_rank_size"](
        getattr(layer, RUNTIME.linear_group)
    )
    return rank, size


def _experts_place(layer: Any) -> tuple[int, int]:
    """Which shard of the experts this rank has, and of how many."""
    tp_size = getattr(layer, "moe_tp_size", getattr(layer, "tp_size", 1))
    tp_rank = getattr(layer, "moe_tp_rank", getattr(layer, "tp_rank", 0))
    return layer.moe_ep_rank * tp_size + tp_rank, layer.moe_ep_size * tp_size


def _experts_apply(witness: Witness, *, whole: bool) -> Callable[..., Any]:
    def apply(self: Any, layer: Any, *args: Any, **options: Any) -> Any:
        """Experts without weights; the tree's own layer, dispatcher and combine surround them."""
        dispatched = options.get("dispatch_output", args[0] if args else None)
        x = options["x"] if dispatched is None else dispatched
        x = x if isinstance(x, torch.Tensor) else x.hidden_states
        shard, shards = (0, 1) if whole else _experts_place(layer)
        output = witness.partial(
            layer, shard=shard, shards=shards, tokens=x.shape[0], marks=x[:, 0]
        )
        if dispatched is None or isinstance(dispatched, torch.Tensor):
            return output
        if isinstance(layer.dispatcher, AllToAll):
            return SimpleNamespace(hidden_states=output)
        namespace = type(layer.dispatcher).combine.__globals__
        return namespace["StandardCombineInput"](hidden_states=output)

    return apply


def _no_weights(self: Any, layer: Any, *args: Any, **options: Any) -> None:
    """Names that constructors look at, for weights of size one."""
    for name in ("w13_weight", "w2_weight"):
        layer.register_parameter(name, torch.nn.Parameter(torch.zeros(1, 1, 1)))


def _nothing(self: Any, *args: Any, **options: Any) -> None:
    """No weights are needed, and nothing runs on them."""
