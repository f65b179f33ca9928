"""Weights without a checkpoint: one model, sliced by the engine itself.

Runs inside the engine's Python (standard library, torch and sglang only). The engine
calls ``initialize_dummy_weights(model)`` for ``load_format="dummy"``
(``sglang/srt/model_loader/loader.py``); `install` puts `fill` in its place. Every
parameter gets a full tensor made from its name and the seed, whose shape is the one
that the one-rank run has, and the parameter's own ``weight_loader`` takes the slice.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

LAST_RESORT: list[str] = []
"""Tensors of this process that were sliced by comparing shapes, and why."""
ARGUED: dict[str, str] = {
    "self_attn.sinks": "one a head, in the attention group's order (gpt_oss.py:1277 of 0.5.23)",
}
"""Ends of names -> why a slice by shape is right there; any other is an error."""

Spec = dict[str, Any]
# what a model derives at the end of `load_weights` and not in `post_load_weights`
_DERIVES = ("_set_mla_wkc_wvc",)
_ROUTERS = ("gate", "router", "classifier", "router_gate", "gate_proj_router")


def install(*, seed: int, shapes: Path) -> None:
    """Make ``load_format="dummy"`` fill the model from ``seed``.

    The one-rank run writes `shapes` (JSON: name to full shape, parts and kind); a run
    on several ranks reads it. Raises RuntimeError, when the model is loaded, that
    names a parameter which `shapes` lacks or which nothing filled.
    """

    def initialize_dummy_weights(model: torch.nn.Module, *_: object, **__: object) -> None:
        fill(model, seed=seed, shapes=shapes)
        if torch.cuda.is_available():
            # memory for keys and values comes next: a kernel may read what it then masks
            torch.use_deterministic_algorithms(mode=False)

    for name in ("loader", "weight_utils"):
        module: Any = importlib.import_module(f"sglang.srt.model_loader.{name}")
        if not hasattr(module, "initialize_dummy_weights"):
            raise RuntimeError(
                f"sglang.srt.model_loader.{name} has no initialize_dummy_weights: "
                "this release's dummy loader is not known here"
            )
        module.initialize_dummy_weights = initialize_dummy_weights


def fill(model: torch.nn.Module, *, seed: int, shapes: Path) -> None:
    """Fill every floating parameter and persistent buffer of `model`."""
    LAST_RESORT.clear()
    alone = _world() == 1
    specs: dict[str, Spec] = {} if alone else json.loads(shapes.read_text())
    rows = _expert_counts(model)
    with torch.no_grad():
        for name, owner, leaf, tensor in _tensors(model):
            if alone:
                specs[name] = _spec(name, owner, tensor, rows=rows)
            elif name not in specs:
                raise RuntimeError(
                    f"{name}: not a parameter of the one-rank run; "
                    "this layout builds another model, which cannot be compared"
                )
            if specs[name]["kind"] == "computed":
                continue
            full = full_tensor(name, specs[name], seed=seed, dtype=tensor.dtype)
            tensor.data.fill_(math.nan)
            _load(owner, leaf, tensor, full, specs[name], name=name)
        empty = [
            name
            for name, _, _, tensor in _tensors(model)
            if specs[name]["kind"] != "computed" and bool(torch.isnan(tensor).any())
        ]
    if empty:
        raise RuntimeError(f"no weight loader filled: {', '.join(empty)}")
    for name in _DERIVES:
        if hasattr(model, name):
            getattr(model, name)()
    odd = [said for said in LAST_RESORT if not said.split(": ")[0].endswith(tuple(ARGUED))]
    if odd:
        raise RuntimeError(f"{len(odd)} tensors were sliced by comparing shapes, such as {odd[0]}")
    if not any("expert" in name or tensor.dim() > 2 for name, _, _, tensor in _tensors(model)):
        raise RuntimeError("no tensor of experts: this configuration makes no mixture")
    if alone:
        scratch = shapes.with_name(f"{shapes.name}.{os.getpid()}")
        scratch.write_text(json.dumps(specs, indent=0))
        scratch.replace(shapes)


def full_tensor(name: str, spec: Spec, *, seed: int, dtype: torch.dtype) -> torch.Tensor:
    """The whole tensor `name`, the same on every rank of every layout.

    Norm weights lie near one; projections have 1.5 / sqrt(fan-in), so that a block
    answers with about what it was given and a sum taken twice shows; routers have
    twice that, which spreads the scores of the experts well beyond rounding; biases
    are small, and not zero.
    """
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator(device="cpu")
    generator.manual_seed(int.from_bytes(digest[:7], "big"))
    shape, kind = tuple(spec["shape"]), spec["kind"]
    tensor = torch.randn(shape, generator=generator, device="cpu", dtype=torch.float32)
    fan_in = shape[-1] if shape else 1
    if kind == "one":
        tensor = 1 + 0.1 * tensor
    elif kind == "log":
        tensor = 0.5 * tensor.abs()
    elif kind == "small":
        tensor = 0.1 * tensor
    elif kind == "correction":
        tensor = 0.02 * tensor
    elif kind == "router":
        tensor = tensor * (3.0 / math.sqrt(fan_in))
    elif kind == "projection":
        tensor = tensor * (1.5 / math.sqrt(fan_in))
    return tensor.to(dtype)


def _spec(name: str, owner: torch.nn.Module, tensor: torch.Tensor, *, rows: set[int]) -> Spec:
    shape = list(tensor.shape)
    vocabulary = getattr(owner, "org_vocab_size", None)
    dim = getattr(tensor, "output_dim", None)
    if vocabulary is not None and dim is not None:
        shape[dim] = vocabulary  # the loader pads it
    return {
        "shape": shape,
        "parts": _parts(owner, tensor),
        "kind": _kind(name, owner, tensor, rows=rows),
    }


def _kind(  # noqa: PLR0911 - one line a kind
    name: str, owner: torch.nn.Module, tensor: torch.Tensor, *, rows: set[int]
) -> str:
    path = name.lower().split(".")
    leaf, holder = path[-1], path[-2] if len(path) > 1 else ""
    constant = tensor.numel() > 0 and bool((tensor == tensor.flatten()[0]).all())
    if not isinstance(tensor, torch.nn.Parameter) and not constant and not tensor.isnan().any():
        return "computed"
    if "correction" in leaf or leaf in ("expert_bias", "e_score_bias", "moe_statics"):
        return "correction"
    if "a_log" in leaf:
        return "log"
    is_norm = "norm" in leaf or "norm" in holder or holder.startswith("ln")
    ones = constant and tensor.flatten()[0] == 1
    if tensor.dim() < 2:
        return "one" if (is_norm or ones) and "bias" not in leaf else "small"
    if is_norm:
        return "one"
    if "bias" in leaf:
        return "small"
    if type(owner).__name__ == "VocabParallelEmbedding" or isinstance(owner, torch.nn.Embedding):
        return "embedding"
    gate = any(part in _ROUTERS or "router" in part for part in path[-3:])
    return "router" if gate and tensor.shape[0] in rows else "projection"


def _parts(owner: torch.nn.Module, tensor: torch.Tensor) -> list[list[Any]] | None:
    """(shard id, length along the output dimension) of a tensor that is several."""
    dim = getattr(tensor, "output_dim", None)
    names = {base.__name__ for base in type(owner).__mro__}
    parts: list[list[Any]] = []
    if dim is None:
        return None
    if "QKVParallelLinear" in names:
        size: int = owner.head_size  # type: ignore[assignment]
        value: int = getattr(owner, "v_head_size", size)
        heads: int = owner.total_num_heads  # type: ignore[assignment]
        pairs: int = owner.total_num_kv_heads  # type: ignore[assignment]
        parts = [["q", heads * size], ["k", pairs * size], ["v", pairs * value]]
    elif "MergedColumnParallelLinear" in names:
        parts = [[i, n] for i, n in enumerate(owner.output_sizes)]  # type: ignore[arg-type]
    elif "MergedColumnParallelRepeatedLinear" in names:
        sizes = owner.output_partition_sizes
        parts = [[i, n] for i, n in enumerate(sizes)]  # type: ignore[arg-type]
    return parts if sum(n for _, n in parts) == tensor.shape[dim] else None


def _load(
    owner: torch.nn.Module,
    leaf: str,
    tensor: torch.Tensor,
    full: torch.Tensor,
    spec: Spec,
    *,
    name: str,
) -> None:
    loader = getattr(tensor, "weight_loader", None)
    if loader is None:
        _slice(owner, tensor, full, name=name, why="has no weight loader")
        return
    try:
        if _is_experts(owner) and leaf.startswith(("w13", "w2")):
            _load_experts(owner, leaf, tensor, full)
        elif spec["parts"]:
            at, dim = 0, tensor.output_dim  # type: ignore[attr-defined]
            for shard, length in spec["parts"]:
                loader(tensor, full.narrow(dim, at, length).contiguous(), shard)
                at += length
        elif type(owner).__name__ == "DbrxExperts":
            _load_dbrx(leaf, tensor, full)
        elif type(owner).__name__ == "ColumnParallelBatchedLinear":
            for shard in range(full.shape[0]):
                loader(tensor, full[shard], shard)
        else:
            loader(tensor, full)
    except (AssertionError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        why = f"{type(error).__name__}: {str(error)[:120]}"
        _slice(owner, tensor, full, name=name, why=f"was refused by its loader ({why})")


def _load_experts(owner: Any, leaf: str, tensor: Any, full: torch.Tensor) -> None:
    loader = tensor.weight_loader
    shard = "w2" if leaf.startswith("w2") else "w13"
    if getattr(loader, "__name__", "") == "weight_loader_fused":
        # experts and bias as gpt_oss's load_weights hands them over (gpt_oss.py:1271 of 0.5.23)
        if full.shape[0] != tensor.shape[0]:
            here = owner.moe_ep_rank * tensor.shape[0]
            full = full.narrow(0, here, tensor.shape[0])
        if leaf == "w2_weight_bias" and owner.moe_tp_rank:
            full = torch.zeros_like(full)  # the ranks' products are summed, the bias is not
        loader(tensor, full.contiguous(), leaf, shard)
        return
    for expert in range(full.shape[0]):
        one, label = full[expert], f"experts.{expert}.{leaf}"
        if shard == "w2":
            loader(tensor, one.contiguous(), label, "w2", expert)
        elif getattr(owner.moe_runner_config, "is_gated", True):
            half = one.shape[0] // 2
            loader(tensor, one[:half].contiguous(), label, "w1", expert)
            loader(tensor, one[half:].contiguous(), label, "w3", expert)
        else:
            loader(tensor, one.contiguous(), label, "w1", expert)


def _load_dbrx(leaf: str, tensor: Any, full: torch.Tensor) -> None:
    """Its loader takes one of three names (dbrx.py:155 of 0.5.23), and `w2` the other way round."""
    if leaf == "ws":
        gate, up = full.chunk(2, dim=1)
        tensor.weight_loader(tensor, gate.contiguous(), "w1")
        tensor.weight_loader(tensor, up.contiguous(), "v1")
    else:
        tensor.weight_loader(tensor, full.transpose(1, 2).contiguous(), "w2")


def _slice(
    owner: torch.nn.Module, tensor: torch.Tensor, full: torch.Tensor, *, name: str, why: str
) -> None:
    """Copy this rank's part, told by comparing shapes; recorded when there is one."""
    for dim in range(full.dim()):
        ways, rest = divmod(full.shape[dim], tensor.shape[dim])
        if rest:
            raise RuntimeError(f"{name}: {list(full.shape)} does not divide into this layout")
        if ways > 1:
            rank = _rank(owner, ways, name=name)
            full = full.narrow(dim, rank * tensor.shape[dim], tensor.shape[dim])
            LAST_RESORT.append(f"{name}: dimension {dim} in {ways}; it {why}")
    tensor.data.copy_(full)


def _rank(owner: torch.nn.Module, ways: int, *, name: str) -> int:
    """This rank's place in the group of `ways` ranks that shares `name`."""
    found = [("tp", getattr(owner, "tp_size", 0), getattr(owner, "tp_rank", 0))]
    attention = importlib.import_module("sglang.srt.layers.dp_attention")
    state = importlib.import_module("sglang.srt.distributed.parallel_state")
    for kind, module in (("attention_tp", attention), ("tensor_model_parallel", state)):
        size = getattr(module, f"get_{kind}_{_SIZE[kind]}", None)
        rank = getattr(module, f"get_{kind}_rank", None)
        if size is not None and rank is not None:
            found.append((kind, size(), rank()))
    try:
        context = importlib.import_module("sglang.srt.runtime_context").get_parallel()
        found.append(("attn_tp", context.attn_tp_size, context.attn_tp_rank))
        found.append(("tp", context.tp_size, context.tp_rank))
    except (ImportError, AttributeError):
        pass  # before 0.5.2x the two modules above have it
    for _, size, rank in found:
        if size == ways:
            return int(rank)
    raise RuntimeError(f"{name}: no group of {ways} ranks is known that could share it")


_SIZE = {"attention_tp": "size", "tensor_model_parallel": "world_size"}


def _tensors(
    model: torch.nn.Module,
) -> Iterator[tuple[str, torch.nn.Module, str, torch.Tensor]]:
    """(name, module, name in the module, tensor) of what a checkpoint would hold, once."""
    seen: set[int] = set()
    for prefix, owner in model.named_modules():
        kept = {
            leaf: buffer
            for leaf, buffer in owner._buffers.items()
            if leaf not in owner._non_persistent_buffers_set
        }
        for leaf, tensor in [*owner._parameters.items(), *kept.items()]:
            if tensor is None or id(tensor) in seen or not tensor.is_floating_point():
                continue
            seen.add(id(tensor))
            yield (f"{prefix}.{leaf}" if prefix else leaf), owner, leaf, tensor


def _expert_counts(model: torch.nn.Module) -> set[int]:
    counts: set[int] = set()
    for module in model.modules():
        if _is_experts(module):
            for zero in range(9):  # LongCat's routers score zero experts as well
                counts.add(int(module.num_experts) + zero)  # type: ignore[arg-type]
    return counts


def _is_experts(module: torch.nn.Module) -> bool:
    return any(base.__name__ == "FusedMoE" for base in type(module).__mro__)


def _world() -> int:
    if not torch.distributed.is_initialized():
        return 1
    return torch.distributed.get_world_size()
