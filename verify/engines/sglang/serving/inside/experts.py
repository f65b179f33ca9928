"""A mixture of experts in plain torch, for kernels that a CPU lacks.

Each expert's rows go through its two projections; an id that is not held here (-1, or
another rank's) adds zero, as in the engine's Triton kernel. What is not spelled out here
raises, so that no quantisation or fusion passes for this.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

KNOWN = {
    "hidden_states",
    "w1",
    "w2",
    "topk_weights",
    "topk_ids",
    "b1",
    "b2",
    "inplace",
    "activation",
    "is_gated",
    "apply_router_weight_on_input",
    "routed_scaling_factor",
    "filter_expert",
    "gate_up_interleaved",  # is of the activations that take gemm1_alpha, which is refused
}


def mixture(
    x: torch.Tensor,
    w13: torch.Tensor,
    w2: torch.Tensor,
    weights: torch.Tensor,
    ids: torch.Tensor,
    *,
    activation: str,
    gated: bool,
    weight_on_input: bool,
    biases: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None),
    swiglu: tuple[float, float] | None = None,
) -> torch.Tensor:
    """The sum of each token's experts; `w13` is (expert, gate and up, hidden).

    `swiglu` is the slope and the limit of a clamped gate, and up plus one (MiniMax-M3).

    Raises NotImplementedError for an activation that is not known here.
    """
    total = torch.zeros_like(x)
    for expert in range(w13.shape[0]):
        token, slot = (ids == expert).nonzero(as_tuple=True)
        if token.numel() == 0:
            continue
        weight = weights[token, slot, None].to(x.dtype)
        rows = x[token] * weight if weight_on_input else x[token]
        bias13, bias2 = (None if bias is None else bias[expert] for bias in biases)
        inner = functional.linear(rows, w13[expert], bias13)
        inner = _clamped(inner, *swiglu) if swiglu else _activated(inner, activation, gated=gated)
        out = functional.linear(inner, w2[expert], bias2)
        total.index_add_(0, token, out if weight_on_input else out * weight)
    return total


def _clamped(inner: torch.Tensor, slope: float, limit: float) -> torch.Tensor:
    gate, up = inner.chunk(2, dim=-1)
    gate = gate.clamp(max=limit)
    return gate * torch.sigmoid(slope * gate) * (up.clamp(-limit, limit) + 1)


def _activated(inner: torch.Tensor, activation: str, *, gated: bool) -> torch.Tensor:
    gate, up = inner.chunk(2, dim=-1) if gated else (inner, None)
    if activation == "silu":
        gate = functional.silu(gate)
    elif activation == "gelu":
        gate = functional.gelu(gate)
    elif activation == "relu2":
        gate = functional.relu(gate).square()
    else:
        raise NotImplementedError(f"the activation {activation} of a mixture has no stand-in")
    return gate if up is None else gate * up


def fused_experts(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """In place of ``fused_experts_impl``, whose Triton kernels look for a GPU's tuning.

    Raises NotImplementedError that names an argument which this does not do.
    """
    signature = inspect.signature(original)

    def fused_experts_impl(*positional: Any, **named: Any) -> torch.Tensor:
        given = signature.bind(*positional, **named).arguments
        defaults = {name: one.default for name, one in signature.parameters.items()}
        odd = [k for k, value in given.items() if k not in KNOWN and value is not defaults[k]]
        if odd:
            raise NotImplementedError(f"fused_experts_impl with {', '.join(odd)} has no stand-in")
        x = given["hidden_states"]
        total = mixture(
            x,
            given["w1"],
            given["w2"],
            given["topk_weights"],
            given["topk_ids"],
            activation=given.get("activation", "silu"),
            gated=given.get("is_gated", True),
            weight_on_input=given.get("apply_router_weight_on_input", False),
            biases=(given.get("b1"), given.get("b2")),
        )
        scale = given.get("routed_scaling_factor")
        total = total if scale is None else total * scale
        return x.copy_(total) if given.get("inplace") else total

    return fused_experts_impl
