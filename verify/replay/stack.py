"""A model's own stack of layers on one rank: built by its constructor, run by its forward."""

from typing import Any

import torch

from verify.replay.decoders import Decoder
from verify.replay.environment import call
from verify.replay.model_config import MissingError, ModelConfig, neutral
from verify.replay.tree import Tree
from verify.replay.witness import HIDDEN_SIZE

_ATTEMPTS = 60


class Attention(torch.nn.Module):
    """Attention that adds nothing: whichever way its output is summed, it stays zero."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__()

    def forward(self, *args: Any, **options: Any) -> torch.Tensor:
        """Zeros in the shape of the hidden states among the arguments."""
        tensors = [value for value in (*options.values(), *args) if isinstance(value, torch.Tensor)]
        hidden = next(t for t in tensors if t.dim() == 2 and t.shape[1] == HIDDEN_SIZE)
        return torch.zeros_like(hidden)


def learn_config(tree: Tree, decoder: Decoder) -> dict[str, Any]:
    """The configuration names that the model's constructor cannot do without."""
    learned: dict[str, Any] = {}
    for _ in range(_ATTEMPTS):
        try:
            build(tree, decoder, learned)
        except MissingError as missing:
            learned[str(missing.name)] = neutral(str(missing.name))
        else:
            return learned
    raise MissingError(f"more than {_ATTEMPTS} names", name="config")


def build(tree: Tree, decoder: Decoder, learned: dict[str, Any]) -> Any:
    """The model that stacks `decoder`, with attention replaced."""
    module = tree.module(f"sglang.srt.models.{decoder.model}")
    for name in decoder.attention:
        module[name] = Attention
    stack = module[decoder.stacks[0]]
    return call(
        stack,
        {"config": ModelConfig(learned=learned), "quant_config": None, "prefix": "model"},
    )


def run(model: Any, batch: Any) -> torch.Tensor:
    """The final hidden states `[tokens, hidden]` of the rank's batch."""
    output = call(
        model.forward,
        {"input_ids": batch.input_ids, "positions": batch.positions, "forward_batch": batch},
    )
    hidden = output[0] if isinstance(output, tuple) else output
    if not isinstance(hidden, torch.Tensor):
        raise TypeError(f"the model returned {type(hidden).__name__}, not hidden states")
    return hidden
