"""A --patch for vLLM 0.32.0: Intern-S1-Pro has its `model_config` before it asks for it."""

from vllm.model_executor.models.interns1_pro import InternS1ProForConditionalGeneration

made = InternS1ProForConditionalGeneration.__init__


def make(self, *, vllm_config, prefix=""):
    object.__setattr__(self, "model_config", vllm_config.model_config)
    made(self, vllm_config=vllm_config, prefix=prefix)


InternS1ProForConditionalGeneration.__init__ = make
