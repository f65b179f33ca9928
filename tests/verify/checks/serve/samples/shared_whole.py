"""A --patch for vLLM 0.32.0: shared experts are whole where each rank has tokens of its own."""

from functools import partial

from vllm.config import get_current_vllm_config
from vllm.model_executor.models import k2_horizon, qwen3_moe


def repair(module, name):
    kind = getattr(module, name)
    made = kind.__init__

    def make(self, *positional, **named):
        spread = get_current_vllm_config().parallel_config.use_sequence_parallel_moe
        kept = module.MergedColumnParallelLinear, module.RowParallelLinear
        if spread and named.get("reduce_results") is False:
            module.MergedColumnParallelLinear = partial(kept[0], disable_tp=True)
            module.RowParallelLinear = partial(kept[1], disable_tp=True)
        made(self, *positional, **named)
        module.MergedColumnParallelLinear, module.RowParallelLinear = kept

    kind.__init__ = make


repair(k2_horizon, "K2HorizonMLP")
repair(qwen3_moe, "Qwen3MoeMLP")
