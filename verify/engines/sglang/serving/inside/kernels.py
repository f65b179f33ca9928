"""Kernels of models that ask for a CUDA tensor, in plain torch, and who chooses attention.

`install` puts them in their places, in the releases that have those.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch

ALL: dict[str, str] = {
    "latent-attention": "torch_native has no handler for latent attention and gets Triton's, which "
    "hands it whole heads that it does not read; the absorbed form, which it serves",
    "product-type": "a product with another type for its result exists for CUDA only",
    "query-key-norm": "MiniMax-M2's two kernels, squares and their use, take CUDA tensors only; "
    "the sum between them stays the engine's",
}


def install() -> None:
    """After the engine is imported."""
    torch.mm = product(torch.mm)
    minimax = _module("sglang.srt.models.minimax_m2")
    if hasattr(minimax, "rms_sumsq_serial"):
        minimax.rms_sumsq_serial = squares
        minimax.rms_apply_serial = scaled
    handlers = _module("sglang.srt.models.deepseek_common.attention_backend_handler")
    if hasattr(handlers, "_dispatch_mla_subtype"):
        chosen: Any = handlers._dispatch_mla_subtype
        handlers.AttentionBackendRegistry.register("torch_native", chosen)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def product(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """``torch.mm``, whose `out_dtype` CPU does not know: the operands in that type."""

    def mm(
        a: torch.Tensor, b: torch.Tensor, *, out_dtype: torch.dtype | None = None, **named: Any
    ) -> torch.Tensor:
        if out_dtype is not None:
            a, b = a.to(out_dtype), b.to(out_dtype)
        return original(a, b, **named)

    return mm


def squares(x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
    """Sums of squares of the rows of `x1`, then of `x2`, with up to three zeros behind."""
    sums = torch.cat([x.float().square().sum(-1) for x in (x1, x2)])
    return torch.nn.functional.pad(sums, (0, -len(sums) % 4))


def scaled(  # noqa: PLR0917 (as the engine has it)
    x1: torch.Tensor,
    x2: torch.Tensor,
    w1: torch.Tensor,
    w2: torch.Tensor,
    sum_sq: torch.Tensor,
    tp_world: int = 1,
    eps: float = 1e-5,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows divided by their root mean square over `tp_world` ranks' parts, times the weights."""
    rows = x1.shape[0]

    def normed(x: torch.Tensor, weight: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
        inverse = torch.rsqrt(sums / x.shape[1] / tp_world + eps)
        return (x.float() * inverse[:, None] * weight.float()).to(x.dtype)

    return normed(x1, w1, sum_sq[:rows]), normed(x2, w2, sum_sq[rows : 2 * rows])
