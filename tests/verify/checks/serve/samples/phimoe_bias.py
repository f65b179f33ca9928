"""A --patch for vLLM 0.32.0: PhiMoE adds the bias of its head, which it loads."""

from vllm.model_executor.models import phimoe


def logits(self, hidden_states):
    return self.logits_processor(self.lm_head, hidden_states, self.lm_head.bias)


phimoe.PhiMoEForCausalLM.compute_logits = logits
