"""The names under which SGLang's releases know what `replay` executes."""

import re
from typing import Any

from verify.engines.runtime import Runtime
from verify.engines.sglang.communicator import PUBLISHED
from verify.engines.sglang.vocabulary import (
    A2A_BACKEND,
    COMMUNICATOR_FLAGS,
    EXPERT_FACTORY,
    EXPERT_LAYERS,
    FLAG_FUNCTIONS,
    LOCAL_SIZE,
    MODELS_PACKAGE,
)

ROOT = "sglang.srt."


def _told(part: Any, batch: Any) -> dict[str, bool] | None:
    """What the exit of an FFN stage publishes while its block runs; nothing from 0.5.22 on."""
    if getattr(getattr(part, "kind", None), "name", "") != "FFN":
        return None
    leaving = part.plan.output.ffn_exit(batch, stream=None)
    return {flag: bool(getattr(leaving, name, False)) for flag, name in PUBLISHED.items()}


RUNTIME = Runtime(
    root=ROOT,
    models=MODELS_PACKAGE,
    state=f"{ROOT}distributed.parallel_state",
    attention=f"{ROOT}layers.dp_attention",
    flags=f"{ROOT}layers.moe.utils",
    published={flag: function for function, flag in FLAG_FUNCTIONS.items()},
    communicator=f"{ROOT}layers.communicator",
    answered={flag: method for method, flag in COMMUNICATOR_FLAGS.items()},
    told=_told,
    backends=A2A_BACKEND,
    arguments=f"{ROOT}server_args",
    fields=f"{ROOT}arg_groups.fields",
    batch=f"{ROOT}model_executor.forward_batch_info",
    stage_output="PPProxyTensors",
    context=f"{ROOT}model_executor.forward_context",
    settings=f"{ROOT}runtime_context",
    sizes="get_parallel",
    older_settings=f"{ROOT}managers.schedule_batch",
    experts=re.compile(rf"^({EXPERT_FACTORY}|{'|'.join(EXPERT_LAYERS)}|DeepEPMoE|\w*FusedMoE)$"),
    boundary=re.compile(r"layers\.(communicator|layer_boundary)|boundary$"),
    core_attention="RadixAttention",
    linear_attention="RadixLinearAttention",
    embedding="VocabParallelEmbedding",
    linear_group="tp_group",
    attention_backend="attn_backend",
    decorator="sglang.kernel_api_logging.debug_kernel_api",
    local_size=LOCAL_SIZE,
    # other vendors' packages, and all-to-all backends that are not part of any deployment here
    absent=frozenset(
        {"aiter", "deep_ep", "habana_frameworks", "mooncake", "mori", "sgl_kernel_npu", "torch_npu"}
        | {"torch_musa", "torch_xla", "vllm", "ktransformers", "kt_kernel"}
    ),
)
