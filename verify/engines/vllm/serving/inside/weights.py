"""Weights without a checkpoint: one model, sliced by the engine itself.

A loader for `--load-format seeded`, through vLLM's own `register_model_loader`. Every parameter
gets a full tensor made from its name and the seed, whose shape is the one that the one-rank run
has, and the parameter's own `weight_loader` takes the slice: `q`, `k`, `v` and merged parts one by
one, experts by id. `load_weights` of the model is not run.

Runs inside the engine's Python (standard library, torch and vllm).
"""

import hashlib
import importlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

Spec = dict[str, Any]
"""`shape` of the whole parameter, `parts`: (shard id, rows) as its loader wants them, or None."""

ARGUED = {
    ".sinks": "one a head, in order (gpt_oss.py of 0.32.0 takes this rank's heads)",
    ".learnable_sink_param": "one a head, in order (models/hy_v4/nvidia/model.py:576)",
    ".tau_alpha": "one a head, in order (moondream3.py:1396)",
    ".tau_wq": "a row a head, in order (moondream3.py:1407)",
    ".tau_wv": "a row a head, in order (moondream3.py:1407)",
    "K2HorizonRMSNorm.weight": "a group a head, a key head on several ranks (k2_horizon.py:1265)",
}
"""Ends of module class and own name -> why an equal piece is right there; any other is an error."""

_NOW: dict[str, Any] = {}


def register() -> None:
    """Make the load format known to the engine."""
    loaders: Any = importlib.import_module("vllm.model_executor.model_loader")
    base: Any = importlib.import_module("vllm.model_executor.model_loader.base_loader")

    class Seeded(base.BaseModelLoader):  # type: ignore[misc]
        def download_model(self, model_config: Any) -> None:
            pass

        def load_weights(self, model: torch.nn.Module, model_config: Any) -> None:
            with torch.no_grad():
                fill(model, seed=_NOW["seed"], shapes=_NOW["shapes"])

    loaders.register_model_loader("seeded")(Seeded)


def prepare(*, seed: int, shapes: Path) -> None:
    """The next model is filled from `seed`; one rank writes `shapes`, several read it."""
    _NOW.update(seed=seed, shapes=shapes)


def fill(model: torch.nn.Module, *, seed: int, shapes: Path) -> None:
    """Fill every parameter of floats, and buffers that hold a bias or a scale.

    Raises RuntimeError naming a parameter that `shapes` lacks, that would be sliced by nothing but
    its shape, or that nothing filled; and where the one rank has no tensor of experts.
    """
    alone = torch.distributed.get_world_size() == 1
    specs: dict[str, Spec] = {} if alone else json.loads(shapes.read_text("utf-8"))
    for name, owner, leaf, tensor in _tensors(model):
        if alone:
            specs[name] = {"shape": list(tensor.shape), "parts": _parts(owner, tensor)}
        elif name not in specs:
            raise RuntimeError(
                f"{name}: not a parameter of the one-rank run; "
                "this layout builds another model, which cannot be compared"
            )
        full = full_tensor(name, specs[name]["shape"], seed=seed, dtype=tensor.dtype)
        tensor.data.fill_(math.nan)
        _load(owner, leaf, tensor, full, specs[name]["parts"], name=name)
        if bool(torch.isnan(tensor).any()):
            raise RuntimeError(f"{name}: its weight loader did not fill it")
    if alone:
        if not any("expert" in name or tensor.dim() > 2 for name, _, _, tensor in _tensors(model)):
            raise RuntimeError("no tensor of experts: this configuration makes no mixture")
        shapes.write_text(json.dumps(specs, indent=0), encoding="utf-8")


def full_tensor(
    name: str, shape: list[int], *, seed: int, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """The whole tensor `name`, the same on every rank of every layout.

    Norm weights lie near one; projections have 1.5 / sqrt(fan-in), so that a block answers with
    about what it was given and a sum taken twice shows; biases are small, and not zero.
    """
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    tensor = torch.randn(tuple(shape), generator=generator)
    low = name.lower()
    leaf = low.rsplit(".", 1)[-1]
    if leaf in ("a", "a_log"):
        tensor = 0.5 * tensor.abs()
    elif leaf == "d" or ("norm" in low and "bias" not in leaf):
        tensor = 1 + 0.1 * tensor
    elif "correction_bias" in low or "e_bias" in low or "expert_bias" in low:
        tensor = 0.02 * tensor
    elif len(shape) < 2:
        tensor = 0.1 * tensor
    elif "conv" in low:
        tensor = 0.4 * tensor
    elif "embed" not in low:
        tensor = 1.5 * tensor / math.sqrt(shape[-1])
    return tensor.to(dtype)


def _tensors(model: torch.nn.Module) -> Iterator[tuple[str, Any, str, torch.Tensor]]:
    """Name, module, own name and tensor of all that is to be filled; shared ones once."""
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        kept = module._non_persistent_buffers_set
        buffers = [
            (leaf, buffer)
            for leaf, buffer in module._buffers.items()
            if leaf not in kept and ("bias" in leaf or "scalar" in leaf)
        ]
        for leaf, tensor in [*module._parameters.items(), *buffers]:
            if tensor is not None and tensor.is_floating_point() and id(tensor) not in seen:
                seen.add(id(tensor))
                yield f"{prefix}.{leaf}", module, leaf, tensor


def _parts(owner: Any, tensor: Any) -> list[tuple[Any, int]] | None:
    """(shard id, rows) along the output dimension as one rank has them; None: one piece."""
    linear: Any = importlib.import_module("vllm.model_executor.layers.linear")
    if getattr(tensor, "output_dim", None) is None:
        return None
    if isinstance(owner, linear.QKVParallelLinear):
        head = owner.head_size
        value = getattr(owner, "v_head_size", head)
        parts: list[tuple[Any, int]] = [
            ("q", owner.total_num_heads * head),
            ("k", owner.total_num_kv_heads * head),
            ("v", owner.total_num_kv_heads * value),
        ]
    elif isinstance(owner, linear.MergedColumnParallelLinear):
        parts = list(enumerate(owner.output_sizes))
    else:
        return None
    whole = sum(rows for _, rows in parts) == tensor.shape[tensor.output_dim]
    return parts if whole else None


def _load(
    owner: Any,
    leaf: str,
    tensor: Any,
    full: torch.Tensor,
    parts: list[tuple[Any, int]] | None,
    *,
    name: str,
) -> None:
    experts: Any = importlib.import_module("vllm.model_executor.layers.fused_moe.routed_experts")
    loader = getattr(tensor, "weight_loader", None)
    if isinstance(owner, experts.RoutedExperts) and leaf.startswith(("w13", "w2")) and loader:
        _load_experts(owner, leaf, tensor, full, experts.RoutedExperts)
    elif loader is not None and parts and getattr(loader, "__self__", None) is owner:
        start = 0
        for shard, rows in parts:
            loader(tensor, full.narrow(tensor.output_dim, start, rows).contiguous(), shard)
            start += rows
    elif loader is not None:
        loader(tensor, full)
    else:
        _copy(owner, leaf, tensor, full, name=name)


def _load_experts(owner: Any, leaf: str, tensor: Any, full: torch.Tensor, base: Any) -> None:
    """Expert by expert, gate and up apart, as `load_weights` of the models does."""
    here, gated = owner.moe_config.tp_rank, owner.moe_config.is_act_and_mul
    everybody = tensor.shape[0] == full.shape[0]
    # dbrx has a loader of its own, for the fused tensors of its checkpoint
    loader = base.weight_loader.__get__(owner)
    if leaf == "w2_bias" and everybody and here:
        # added up over ranks: gpt_oss's load_weights leaves it to the first
        tensor.data.zero_()
    elif leaf.startswith("w13") and everybody and owner.activation.value == "swigluoai":
        # rows of gate and up take turns
        rows = tensor.shape[1]
        tensor.data.copy_(full.narrow(1, here * rows, rows))
    else:
        for number, whole in enumerate(full):
            said = f"experts.{number}.{leaf}"
            if leaf.startswith("w2"):
                loader(tensor, whole.contiguous(), said, "w2", number)
            elif gated:
                gate, up = whole.chunk(2)
                loader(tensor, gate.contiguous(), said, "w1", number)
                loader(tensor, up.contiguous(), said, "w3", number)
            else:
                loader(tensor, whole.contiguous(), said, "w1", number)


def _copy(owner: Any, leaf: str, tensor: torch.Tensor, full: torch.Tensor, *, name: str) -> None:
    """A tensor without a loader: whole, or where it is argued this rank's equal piece."""
    if tensor.shape != full.shape:
        if not f"{type(owner).__name__}.{leaf}".endswith(tuple(ARGUED)):
            raise RuntimeError(f"{name}: has no weight loader, and this rank holds a part of it")
        state: Any = importlib.import_module("vllm.distributed")
        here, size = (
            state.get_tensor_model_parallel_rank(),
            state.get_tensor_model_parallel_world_size(),
        )
        pieces = full.shape[0] // tensor.shape[0]
        full = full.chunk(pieces)[here * pieces // size]
    tensor.data.copy_(full)
