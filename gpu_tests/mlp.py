"""A SwiGLU MLP cut to one rank's width: a dense layer's, or a block's shared experts."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class MLPWeights:
    """A whole MLP's weights. H hidden, I intermediate: gate and up [I, H], down [H, I]."""

    gate: Tensor
    up: Tensor
    down: Tensor

    def to(self, dtype: torch.dtype) -> "MLPWeights":
        """The same weights rounded to `dtype`."""
        return MLPWeights(gate=self.gate.to(dtype), up=self.up.to(dtype), down=self.down.to(dtype))

    @property
    def intermediate(self) -> int:
        """The width that is cut."""
        return len(self.gate)


class SwiGLU(nn.Module):
    """The slice `width` of an MLP's intermediate dimension: [tokens, H] in, a partial sum out."""

    def __init__(self, weights: MLPWeights, width: slice) -> None:
        super().__init__()
        self.gate = frozen(weights.gate[width])
        self.up = frozen(weights.up[width])
        self.down = frozen(weights.down[:, width])

    def forward(self, x: Tensor) -> Tensor:
        """This slice's part of the output; all slices' parts add up to the MLP."""
        inner = functional.silu(x @ self.gate.T) * (x @ self.up.T)
        return inner @ self.down.T


def draw_mlp(draw: Callable[..., Tensor], *, hidden: int, intermediate: int) -> MLPWeights:
    """An MLP whose weights come from `draw`, which is given a shape."""
    return MLPWeights(
        gate=draw(intermediate, hidden),
        up=draw(intermediate, hidden),
        down=draw(hidden, intermediate),
    )


def frozen(tensor: Tensor) -> nn.Parameter:
    """A parameter that nobody trains."""
    return nn.Parameter(tensor.contiguous(), requires_grad=False)
