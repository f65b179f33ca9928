"""Tiny random checkpoints through transformers' own model classes, in the hub's form."""

import importlib
import json
from pathlib import Path
from typing import Any

_BASE = {
    "vocab_size": 256,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_EXPERTS = {
    "moe_intermediate_size": 64,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
}
_NO_HEAD_DIM = {
    **{key: value for key, value in _BASE.items() if key != "head_dim"},
    "hidden_size": 256,
}
# model file -> transformers' class prefix and its configuration
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3_moe": ("Qwen3Moe", {**_BASE, **_EXPERTS, "decoder_sparse_step": 1}),
    "qwen2_moe": (
        "Qwen2Moe",
        {
            **_NO_HEAD_DIM,
            **_EXPERTS,
            "decoder_sparse_step": 1,
            "shared_expert_intermediate_size": 128,
        },
    ),
    "mixtral": ("Mixtral", {**_NO_HEAD_DIM, "num_local_experts": 8, "num_experts_per_tok": 2}),
    "glm4_moe": (
        "Glm4Moe",
        {
            **_BASE,
            **_EXPERTS,
            "n_routed_experts": 8,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
            "use_qk_norm": True,
            "num_hidden_layers": 3,
        },
    ),
}


def write(model: str, folder: Path, *, seed: int) -> None:
    """Configuration and weights of `model` into `folder`. Raises LookupError for one not listed."""
    if model not in MODELS:
        raise LookupError(f"no tiny checkpoint for {model}; there are {', '.join(MODELS)}")
    torch = importlib.import_module("torch")
    transformers = importlib.import_module("transformers")
    prefix, values = MODELS[model]
    torch.manual_seed(seed)
    config = getattr(transformers, f"{prefix}Config")(**values)
    config.dtype = "float32"
    net = getattr(transformers, f"{prefix}ForCausalLM")(config).float()
    biases = [(name, buffer) for name, buffer in net.named_buffers() if "bias" in name]
    with torch.no_grad():
        for name, tensor in [*net.named_parameters(), *biases]:
            noise = torch.randn_like(tensor)
            if "norm" in name and tensor.dim() == 1:
                tensor.copy_(1 + 0.1 * noise)
            else:
                tensor.copy_((0.08 if tensor.dim() > 1 else 0.05) * noise)
    net.save_pretrained(folder)
    file = folder / "config.json"
    written = json.loads(file.read_text("utf-8"))
    written |= {"architectures": [type(net).__name__], "torch_dtype": "float32", "dtype": "float32"}
    file.write_text(json.dumps(written, indent=1), encoding="utf-8")
