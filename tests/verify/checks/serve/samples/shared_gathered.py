"""A --patch for vLLM 0.32.0: the Transformers backend's shared experts see all of a group's tokens.

Where each rank has tokens of its own: gathered, given to every slice, added up, one's own kept.
"""

from vllm.config import get_current_vllm_config
from vllm.distributed import (
    get_tensor_model_parallel_rank,
    tensor_model_parallel_all_gather,
    tensor_model_parallel_all_reduce,
)
from vllm.model_executor.models.transformers.fusers.moe import SharedExpertMLP

made, answered = SharedExpertMLP.__init__, SharedExpertMLP.forward


def make(self, *positional, **named):
    made(self, *positional, **named)
    self.spread = get_current_vllm_config().parallel_config.use_sequence_parallel_moe


def answer(self, hidden_states):
    if not self.spread:
        return answered(self, hidden_states)
    rows = hidden_states.shape[0]
    everyone = tensor_model_parallel_all_gather(hidden_states, 0)
    total = tensor_model_parallel_all_reduce(answered(self, everyone))
    return total.narrow(0, get_tensor_model_parallel_rank() * rows, rows)


SharedExpertMLP.__init__, SharedExpertMLP.forward = make, answer
