"""A --patch for vLLM 0.32.0: Aria's shared expert leaves its sum to the MoE runner (#49122)."""

from vllm.model_executor.models import aria

made = aria.AriaTextMoELayer.__init__


def make(self, *positional, **named):
    made(self, *positional, **named)
    self.shared_experts.down_proj.reduce_results = False


aria.AriaTextMoELayer.__init__ = make
