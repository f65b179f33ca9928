"""For `serve --patch`: what a picture says is added once where the next norm makes the sum as well.

Between two layers of SGLang's Qwen3-VL-MoE. Where a sum is owed, 0.5.17's communicator does not
hand the picture on to the norm; 0.5.20's model adds it, whole, to each rank's part of the sum.
Here it goes with the residual, which every rank has whole, in both.
"""

from sglang.srt.layers.communicator import LayerCommunicator
from sglang.srt.models.qwen3_vl_moe import Qwen3MoeLLMModel

prepare, built = LayerCommunicator.prepare_attn, Qwen3MoeLLMModel.__init__


def prepared(self, hidden_states, residual, *given, post_residual_addition=None, **named):
    """As `prepare_attn`, with a picture already in the residual where a sum is owed."""
    owed = getattr(hidden_states, "_sglang_needs_allreduce_fusion", False)
    if owed and post_residual_addition is not None:
        residual, post_residual_addition = residual + post_residual_addition, None
    named["post_residual_addition"] = post_residual_addition
    return prepare(self, hidden_states, residual, *given, **named)


def build(self, *given, **named):
    """As the class's own; the picture goes to the next layer, as in 0.5.17."""
    built(self, *given, **named)
    self.use_hf_deepstack_order = True


LayerCommunicator.prepare_attn = prepared
Qwen3MoeLLMModel.__init__ = build
