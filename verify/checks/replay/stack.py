"""A model's own stack of layers on one rank: built by its constructor, run by its forward."""

from typing import Any

import torch

from verify.checks.replay.classes import MODELS, RUNTIME
from verify.checks.replay.decoders import Decoder
from verify.checks.replay.environment import call, forward_pass
from verify.checks.replay.model_config import ModelConfig
from verify.emulator.pipeline import Pipeline
from verify.emulator.standin import StandIn
from verify.emulator.tree import Tree
from verify.emulator.witness import HIDDEN_SIZE


class _Off(StandIn):
    """An optional feature of attention: it is off, and doing it does nothing."""

    def __call__(self, *args: object, **options: object) -> Any:
        """Nothing happens."""
        return self

    def __bool__(self) -> bool:  # type: ignore[override]  # a stand-in refuses, this answers
        return False


class Attention(torch.nn.Module):
    """Attention that adds nothing: whichever way its output is summed, it stays zero."""

    outputs = 1

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_"):
                raise
            return _Off(f"attention.{name}")

    def forward(self, *args: Any, **options: Any) -> Any:
        """Zeros in the shape of the hidden states among the arguments."""
        tensors = [value for value in (*options.values(), *args) if isinstance(value, torch.Tensor)]
        hidden = next(t for t in tensors if t.dim() == 2 and t.shape[1] == HIDDEN_SIZE)
        zeros = torch.zeros_like(hidden)
        return zeros if self.outputs == 1 else (zeros, *[None] * (self.outputs - 1))


def build(tree: Tree, decoder: Decoder, learned: dict[str, Any]) -> Any:
    """The model that stacks `decoder`, with attention replaced."""
    module = tree.module(f"{MODELS}.{decoder.model}")
    for attention in decoder.attention:
        home = tree.module(f"{MODELS}.{attention.home}")
        home.put(attention.name, type("Attention", (Attention,), {"outputs": attention.outputs}))
    if not decoder.stacks:
        raise LookupError(f"no class in {decoder.file} stacks {decoder.cls}")
    stack = module[decoder.stacks[0]]
    layer_type = decoder.layer_type
    if layer_type is not None and module.binds(layer_type):
        layer_type = str(module[layer_type])
    config = ModelConfig(
        learned=learned, layer_type=layer_type, model_type=decoder.model_type or "replayed"
    )
    model = call(
        stack,
        {"config": config, "quant_config": None, "prefix": "model"},
    )
    for part in model.modules():
        configure = getattr(vars(part).get("dispatcher"), "set_quant_config", None)
        if configure is not None:
            configure({"input_global_scale": torch.ones(1)})
    return model


def run(tree: Tree, model: Any, batch: Any, *, pipeline: Pipeline) -> torch.Tensor:
    """The final hidden states `[tokens, hidden]` of the rank's batch.

    Of a pipeline's earlier stage no tokens: what it hands on is sent to the next stage.
    """
    known = {"input_ids": batch.input_ids, "positions": batch.positions, "forward_batch": batch}
    if pipeline.stages > 1:
        module = tree.module(RUNTIME.batch)
        received = pipeline.receive()
        known["pp_proxy_tensors"] = received and module[RUNTIME.stage_output](received)
    with forward_pass(tree, batch):
        output = call(model.forward, known)
    if hasattr(output, "tensors"):
        pipeline.send(output.tensors)
        return torch.zeros((0, HIDDEN_SIZE))
    hidden = output[0] if isinstance(output, tuple) else output
    if not pipeline.is_last():
        raise TypeError(f"{type(model).__name__} hands nothing to a next pipeline stage")
    if not isinstance(hidden, torch.Tensor):
        raise TypeError(f"the model returned {type(hidden).__name__}, not hidden states")
    return hidden
