"""What replaces a kernel, or a primitive that gloo lacks, and why.

None of these decides or does a sum of the model's: communicators, boundaries and models stay the
engine's. `ALL` is the list that every result carries.
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from verify.engines.sglang.serving.inside import experts, kernels

ALL: dict[str, str] = {
    "config-names": "a release may name a configuration that a later transformers has as well; "
    "the release's own is taken",
    "tuning-keys": "a release may tune a kernel by what is none of its arguments, which later "
    "Tritons refuse on import; such names are left out, as the Triton it was made for does",
    "interpreter": "Triton's interpreter makes its names ready again at each function that a "
    "kernel calls, which is most of its time; once a launch for each function",
    "custom-ops": "the engine registers its Python operators for CUDA only in some releases; the "
    "same functions, for CPU as well",
    "cached-prefix": "the correctness test of 0.5.11 gives requests each other's cached prefixes; "
    "each its own, as in later releases",
    "native-moe": "the native MoE knows no expert of another rank (-1) and no empty batch, which "
    "add zero as in the Triton kernel, no expert twice, no weight on the input, no ungated expert, "
    "and takes every clamped gate to alternate with its up",
    "fused-experts": "the Triton mixture looks for a GPU's tuning; its products and sums, in torch",
    "rotary": "latent attention's rotary embedding for CPU knows one scaling only; for any other, "
    "the one that every other device takes",
    "float32": "two architectures are served in bfloat16 whatever the launch says; float32, so "
    "that rounding stays far below a fault",
    "own-kernels": "a model replaces its Triton kernels by CPU operators that are missing; the "
    "engine's own Triton kernels again, interpreted",
    "fill-value": "attention backends lack the value that pads sequence lengths; 1, as in "
    "the others",
    "pynccl": "reduce-scatter and all-gather of different sizes, which gloo lacks, made of its "
    "all-reduce and all-gather",
    "plain-memory": "page-locked memory and the device's own need CUDA; plain memory instead",
    **kernels.ALL,
}


OWN_KERNELS = {
    "sglang.srt.models.grok": {
        "fused_moe_router_shim": "sglang.kernels.ops.moe.router",
        "fused_rmsnorm": "sglang.kernels.ops.layernorm.fused_rmsnorm",
        "fused_dual_residual_rmsnorm": "sglang.kernels.ops.layernorm.fused_rmsnorm",
    },
}
"""Module -> name that it takes from a missing operator -> module that has the Triton kernel."""


def register_custom_ops() -> None:
    """Before the engine is imported: its Python operators, collectives among them, for any key."""
    library: Any = torch.library.Library
    original = library.impl

    def impl(self: Any, name: Any, function: Any, dispatch_key: str = "", **rest: Any) -> Any:
        if dispatch_key == "CUDA" and self.ns == "sglang":
            dispatch_key = "CompositeExplicitAutograd"
        return original(self, name, function, dispatch_key, **rest)

    library.impl = impl


def own_config_names() -> None:
    """Before the engine is imported: what it registers with transformers replaces its namesake."""
    transformers: Any = importlib.import_module("transformers")
    original = transformers.AutoConfig.register

    def register(model_type: str, config: Any, exist_ok: bool = False) -> None:  # noqa: FBT001, FBT002
        del exist_ok
        original(model_type, config, exist_ok=True)

    transformers.AutoConfig.register = staticmethod(register)


def tuning_keys() -> None:
    """Before the engine is imported: its tuning keys may name what is no argument of a kernel."""
    autotuner: Any = importlib.import_module("triton.runtime.autotuner").Autotuner
    autotuner.__init__ = known_keys(autotuner.__init__)


def known_keys(original: Callable[..., None]) -> Callable[..., None]:
    """``Autotuner.__init__``, which is given the keys that are arguments only."""
    signature = inspect.signature(original)

    def init(*positional: Any, **named: Any) -> None:
        bound = signature.bind(*positional, **named)
        given = bound.arguments
        given["key"] = [name for name in given["key"] if name in given["arg_names"]]
        original(*bound.args, **bound.kwargs)

    return init


def ready_once(interpreter: Any) -> None:
    """Within a launch of ``triton.runtime.interpreter`` each function's names are set only once.

    Only the launch itself takes them back (``GridExecutor.__call__``), when it ends.
    """
    make_ready, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    ready: dict[Any, Any] = {}

    def once(function: Any) -> Any:
        if function not in ready:
            ready[function] = make_ready(function)
        return ready[function]

    def launched(self: Any, *positional: Any, **named: Any) -> None:
        ready.clear()
        launch(self, *positional, **named)

    interpreter._patch_lang, interpreter.GridExecutor.__call__ = once, launched


def install() -> None:
    """After the engine is imported: everything else of `ALL`."""
    ready_once(importlib.import_module("triton.runtime.interpreter"))
    moe: Any = importlib.import_module("sglang.srt.layers.moe.fused_moe_native")
    moe.moe_forward_native = native_moe(moe.moe_forward_native)
    fused = _fused_moe()
    fused.fused_experts_impl = experts.fused_experts(fused.fused_experts_impl)
    _rotary()
    _float32()
    own_kernels(OWN_KERNELS)
    kernels.install()
    _fill_values()
    _variable_sizes()
    if not torch.cuda.is_available():
        _plain_memory()


def native_moe(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The native MoE, for which an expert id that this rank does not hold adds zero."""

    def moe_forward_native(layer: Any, x: torch.Tensor, topk: Any, config: Any) -> torch.Tensor:
        if x.shape[0] == 0:
            return torch.zeros_like(x)
        weights, ids, _ = topk
        ids = _held(layer, ids)
        gated = getattr(config, "is_gated", True)
        slope: Any = getattr(config, "gemm1_alpha", None)
        halves = slope is not None and not getattr(config, "gate_up_interleaved", True)
        if config.apply_router_weight_on_input or not gated or halves:
            return experts.mixture(
                x,
                layer.w13_weight,
                layer.w2_weight,
                weights,
                ids,
                activation=config.activation,
                gated=gated,
                weight_on_input=config.apply_router_weight_on_input,
                swiglu=(slope, config.gemm1_clamp_limit) if halves else None,
            )
        foreign = ids < 0
        ordered = ids.sort(dim=1).values
        if not foreign.any() and not (ordered[:, 1:] == ordered[:, :-1]).any():
            return original(layer, x, topk._replace(topk_ids=ids), config)
        weights, ids = weights.masked_fill(foreign, 0), ids.masked_fill(foreign, 0)
        # one expert a token at a time: no id occurs twice in a row then
        total = torch.zeros_like(x)
        for k in range(ids.shape[1]):
            one = topk._replace(topk_weights=weights[:, k : k + 1], topk_ids=ids[:, k : k + 1])
            total = total + original(layer, x, one, config)
        return total

    return moe_forward_native


def _held(layer: Any, ids: torch.Tensor) -> torch.Tensor:
    """Places of experts in this rank's weights, -1 for another rank's.

    Some runners tell their kernel the expert's number in the whole model (Nemotron-H's).
    """
    count = layer.w13_weight.shape[0]
    if getattr(getattr(layer, "dispatcher", None), "skip_local_expert_mapping", False):
        ids = torch.where(ids < 0, ids, ids - layer.moe_ep_rank * count)
    return ids.masked_fill((ids < 0) | (ids >= count), -1)


def _fused_moe() -> Any:
    """The module of the Triton mixture, which 0.5.11 moved."""
    try:
        name = "sglang.srt.layers.moe.moe_runner.triton_utils.fused_moe"
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return importlib.import_module("sglang.srt.layers.moe.fused_moe_triton.fused_moe")


def _rotary() -> None:
    factory: Any = importlib.import_module("sglang.srt.layers.rotary_embedding.factory")
    factory.get_rope_cpu = rotary(factory.get_rope_cpu, factory.get_rope)


def rotary(cpu: Callable[..., Any], other: Callable[..., Any]) -> Callable[..., Any]:
    """``get_rope_cpu``, or `other` where it does not know the scaling."""
    signature = inspect.signature(cpu)

    def get_rope_cpu(*positional: Any, **named: Any) -> Any:
        given = signature.bind(*positional, **named).arguments
        scaling = given.get("rope_scaling")
        if scaling is not None and scaling.get("rope_type") == "deepseek_yarn":
            return cpu(**given)
        return other(**{name: value for name, value in given.items() if name != "device"})

    return get_rope_cpu


def _float32() -> None:
    try:
        base: Any = importlib.import_module("sglang.srt.arg_groups.model_override_base")
    except ModuleNotFoundError:
        return  # before 0.5.19 the launch's type is kept
    for values in base.MODEL_OVERRIDES.values():
        values.pop("dtype", None)


def own_kernels(table: dict[str, dict[str, str]]) -> None:
    """Put the engine's own kernels where `table` says, in the releases that have them there."""
    for user, names in table.items():
        for name, owner in names.items():
            try:
                kernel = getattr(importlib.import_module(owner), name)
                setattr(importlib.import_module(user), name, kernel)
            except (ImportError, AttributeError):
                continue  # the operator's mock stays, which is loud


def _fill_values() -> None:
    backends = "sglang.srt.layers.attention"
    native: Any = importlib.import_module(f"{backends}.torch_native_backend").TorchNativeAttnBackend
    triton: Any = importlib.import_module(f"{backends}.triton_backend").TritonAttnBackend
    for name in ("get_cpu_graph_seq_len_fill_value", "get_cuda_graph_seq_len_fill_value"):
        if name not in vars(native):
            setattr(native, name, _one)
    if not hasattr(triton, "get_cpu_graph_seq_len_fill_value"):
        triton.get_cpu_graph_seq_len_fill_value = _one
    try:
        sparse: Any = importlib.import_module(f"{backends}.minimax_sparse_backend")
        sparse.MiniMaxHybridAttnBackend.get_cpu_graph_seq_len_fill_value = _one
    except (ImportError, AttributeError):
        pass  # releases before MiniMax-M3


def _one(_self: Any) -> int:
    return 1


def _variable_sizes() -> None:
    name = "sglang.srt.distributed.device_communicators.pynccl"
    communicator: Any = importlib.import_module(name).PyNcclCommunicator
    communicator.reduce_scatter = _reduce_scatter
    communicator.all_gather = _all_gather
    communicator.group_start = communicator.group_end = lambda _self: None


def _sizes(group: Any, whole: torch.Tensor, sizes: Any) -> list[int]:
    count = dist.get_world_size(group)
    return list(sizes) if sizes is not None else [whole.shape[0] // count] * count


def _reduce_scatter(
    self: Any, out: torch.Tensor, inp: torch.Tensor, op: Any = None, sizes: Any = None, **_: Any
) -> None:
    if op not in (None, dist.ReduceOp.SUM):
        raise NotImplementedError(f"reduce_scatter with {op}: only sums are composed here")
    shares, rank = _sizes(self.group, inp, sizes), dist.get_rank(self.group)
    total = inp.clone()
    dist.all_reduce(total, group=self.group)
    start = sum(shares[:rank])
    out.copy_(total[start : start + shares[rank]].view_as(out))


def _all_gather(
    self: Any, out: torch.Tensor, inp: torch.Tensor, sizes: Any = None, **_: Any
) -> None:
    shares = _sizes(self.group, out, sizes)
    padded = inp.new_zeros((max(shares), *inp.shape[1:]))
    padded[: inp.shape[0]] = inp
    parts = [torch.empty_like(padded) for _ in shares]
    dist.all_gather(parts, padded, group=self.group)
    rows = torch.cat([part[:share] for part, share in zip(parts, shares, strict=True)])
    out.copy_(rows.view_as(out))


def _plain_memory() -> None:
    torch.Tensor.pin_memory = lambda self, *_, **__: self  # type: ignore[method-assign]
    for name in ("tensor", "empty", "zeros"):
        setattr(torch, name, plain(getattr(torch, name)))


def plain(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """What makes a tensor, neither page-locked nor on a device named in a model's source."""

    def make(*positional: Any, pin_memory: bool = False, **named: Any) -> torch.Tensor:
        if named.get("device") == "cuda":
            named["device"] = "cpu"
        return original(*positional, **named)

    return make
