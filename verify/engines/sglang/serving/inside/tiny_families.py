"""Sizes of a tiny model, and what one family needs beyond them, each with its reason."""

from __future__ import annotations

import dataclasses
from typing import Any

LAYERS = 4
"""Enough for a dense layer, two kinds of attention and a repetition."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """What a family needs: `values` for its class, `after` and `drop` for the file.

    `parts` are configurations within it, by name: what each needs beyond the sizes that it has.
    `attention` is the backend that its launch names; "triton" runs in Triton's interpreter.
    """

    why: str
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    after: dict[str, Any] = dataclasses.field(default_factory=dict)
    drop: tuple[str, ...] = ()
    parts: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    model_type: str | None = None
    attention: str = "torch_native"


SIZES: dict[str, Any] = {
    "dtype": "float32",  # what weights and, where a model file asks, its router are made in
    "vocab_size": 256,
    "hidden_size": 128,
    "out_hidden_size": 128,  # of a vision tower
    "num_hidden_layers": LAYERS,
    "num_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "attention_head_dim": 32,
    "moe_router_scaling_factor": 1.5,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-5,
    "layer_norm_eps": 1e-5,
    "hidden_act": "silu",
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "attention_bias": False,
    "use_bias": False,
    "embedding_dropout": 0.0,
    "output_dropout": 0.0,
    "attention_dropout": 0.0,
    "partial_rotary_factor": 0.5,
    "initializer_range": 0.02,
    "use_qkv_bias": False,
    "intermediate_size": 128,
    "ffn_hidden_size": 128,
    "dense_intermediate_size": 128,
    "embedding_multiplier_scale": 1.0,
    "output_multiplier_scale": 1.0,
    "moe_intermediate_size": 64,
    "expert_ffn_hidden_size": 64,
    "shared_expert_intermediate_size": 64,
    "moe_shared_expert_intermediate_size": 64,
    "num_experts": 8,
    "num_local_experts": 8,
    "n_routed_experts": 8,
    "moe_num_experts": 8,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "moe_topk": 2,
    "moe_k": 2,
    "moe_top_k": 2,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "num_shared_expert": 1,
    "moe_num_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "scoring_func": "sigmoid",
    "score_function": "sigmoid",
    "moe_router_enable_expert_bias": True,
    "prefix_dense_intermediate_size": 128,
    "shared_intermediate_size": 64,
    "routed_scaling_factor": 1.5,
    "decoder_sparse_step": 1,
    "moe_layer_freq": 1,
    "mlp_only_layers": [],
    "num_nextn_predict_layers": 0,
    "sliding_window": 4,
    "q_lora_rank": 64,
    "kv_lora_rank": 96,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 32,
    "v_head_dim": 48,
    "full_attention_interval": 2,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4,
}
"""Every attribute of these names that a family has. The window is shorter than the prompts.

No two widths of latent attention are equal, so that one taken for another does not pass.
"""

ABSENT: dict[str, Any] = {
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
"""What the engine reads though the class has it not: the hub's file or AutoConfig adds it."""

_YARN: dict[str, Any] = {
    "rope_parameters": {
        "rope_type": "yarn",
        "type": "yarn",
        "rope_theta": 10000.0,
        "factor": 2.0,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 256,
    },
}

ENTRIES: dict[str, Entry] = {
    "DeepseekV2ForCausalLM": Entry(
        why="as deepseek_v2 below; version 2 scores by softmax, whose choice need not sum to one",
        values=_YARN | {"num_key_value_heads": 4, "topk_method": "greedy", "norm_topk_prob": False},
        after={"scoring_func": "softmax"},
        drop=("rope_scaling",),
    ),
    "DeepseekV3ForCausalLM": Entry(
        why="as deepseek_v2 below; version 3 corrects its scores, which only the hub's file says",
        values=_YARN | {"num_key_value_heads": 4},
        after={"scoring_func": "sigmoid", "topk_method": "noaux_tc"},
        drop=("rope_scaling",),
    ),
    "deepseek_v2": Entry(
        why="the rotary embedding for CPU wants a scaling (rotary_embedding/factory.py:478)",
        values=_YARN | {"num_key_value_heads": 4},
        drop=("rope_scaling",),
    ),
    "bailing_moe_v3": Entry(
        why="its head is bfloat16 whatever the dtype, as beam's (bailing_moe_v3.py:1409)",
        after={"enable_lm_head_fp32": True},
    ),
    "beam": Entry(
        why="heads as for deepseek; its head is bfloat16 whatever the launch says (beam.py:1326), "
        "and takes products in float32 where the file asks for it (logits_processor.py:471)",
        values={"num_key_value_heads": 4},
        after={"enable_lm_head_fp32": True},
    ),
    "exaone_moe": Entry(
        why="the hub's file says which layers have experts, transformers' class does not; with a "
        "pattern the server asks for triton, which then has no window (triton_backend.py:1824)",
        after={"is_moe_layer": [False, True, True, True], "sliding_window_pattern": None},
    ),
    "llama4": Entry(
        why="its QK norm casts to bfloat16 whatever the dtype (llama4.py:356); two layers as for "
        "gpt_oss, a dense one and a mixture; each fourth has no positions (llama4.py:218), which "
        "is no other sum",
        values={
            "use_qk_norm": False,
            "intermediate_size_mlp": 128,
            "attention_chunk_size": 8,
            "num_hidden_layers": 2,
            "layer_types": ["chunked_attention"] * 2,
            "no_rope_layers": [1, 1],
            "interleave_moe_layer_step": 2,
            "moe_layers": [1],
        },
        attention="triton",
    ),
    "step3p5": Entry(
        why="the engine's class names key-value heads groups and gives no kinds of layers",
        values={
            "num_attention_groups": 4,  # no fewer than ranks: the server pads, on CPU only
            "num_key_value_heads": 4,
            "layer_types": ["full_attention", "sliding_attention"] * 2,
            "moe_layers_enum": [1, 2, 3],
            "share_expert_dims": 64,
            "attention_other_setting": {
                "attention_type": "sliding_attention",
                "num_attention_heads": 4,
                "num_attention_groups": 4,
                "head_dim": 32,
            },
        },
        after={
            "moe_layers_enum": "1,2,3",
            "partial_rotary_factors": [0.5, 1.0, 0.5, 1.0],
            "use_moe_router_bias": True,
            "use_head_wise_attn_gate": True,
            "need_fp32_gate": True,
            "swiglu_limits": [0.0] * 4,
            "swiglu_limits_shared": None,
            "rope_theta": [10000.0] * 4,
        },
    ),
    "dbrx": Entry(
        why="its sizes have names of their own, those of attention and experts in parts; heads as "
        "for deepseek",
        values={
            "num_key_value_heads": 4,
            "d_model": 128,
            "n_heads": 4,
            "n_layers": LAYERS,
            "max_seq_len": 512,
        },
        after={
            "attn_config": {"kv_n_heads": 4, "clip_qkv": 8.0, "rope_theta": 10000.0},
            "ffn_config": {
                "ffn_hidden_size": 64,
                "moe_num_experts": 8,
                "moe_top_k": 2,
                "moe_normalize_expert_weights": 1.0,
            },
        },
    ),
    "longcat_flash": Entry(
        why="latent attention with a head for each query head; zero experts, whose kernel adds "
        "nothing to a row of fewer than 256 (ep_moe_kernels.py:1929 of 0.5.23)",
        values={
            "hidden_size": 256,
            "num_key_value_heads": 4,
            "zero_expert_num": 2,
            "expert_ffn_hidden_size": 64,
        },
        after={
            "rope_scaling": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "apply_yarn_scaling": False,
            }
        },
        drop=("rope_parameters",),  # the class sets rope_scaling last, which is its other name
    ),
    "laguna": Entry(
        why="a window of its own on every second layer, as the hub's file has it; its gates are "
        "not padded where the server pads key-value heads, on CPU only",
        values={
            "layer_types": ["full_attention", "sliding_attention"] * 2,
            "num_key_value_heads": 4,
        },
    ),
    "hunyuan": Entry(
        why="the hub's file names a head_dim twice, and a shared expert (hunyuan.py:169); without "
        "its QK norm, whose rows of one head no backend for CPU takes (hunyuan.py:361)",
        after={"head_dim": 32, "attention_head_dim": 32, "use_mixed_mlp_moe": True},
    ),
    "mistral_large_3": Entry(
        why="a DeepSeek-V3, whose rotary embedding for CPU wants a scaling",
        values={"num_key_value_heads": 4},
        after=_YARN | {"topk_method": "greedy", "scoring_func": "softmax"},
        drop=("rope_scaling",),
    ),
    "SarvamMLAForCausalLM": Entry(
        why="latent attention as DeepSeek's, whose rotary embedding for CPU wants a scaling",
        values={"num_key_value_heads": 4},
        after=_YARN | {"rope_scaling": _YARN["rope_parameters"]},
    ),
    "deepseek": Entry(
        why="fewer key-value heads than ranks are padded on CPU, with another width of a head",
        values={"num_key_value_heads": 4},
    ),
    "minimax_m2": Entry(
        why="the hub's file says what transformers' class takes for granted or names otherwise; "
        "its key norm is not padded where the server pads key-value heads, on CPU only",
        values={"num_key_value_heads": 4},
        after={"use_qk_norm": True, "use_routing_bias": True, "rotary_dim": 16},
    ),
    "xverse_moe": Entry(
        why="as deepseek: padded key-value heads would have another width",
        values={"num_key_value_heads": 4},
    ),
    "zaya": Entry(
        why="a rank without a whole group of queries is refused (zaya.py:921)",
        values={"num_key_value_heads": 4, "num_query_groups": 4},
    ),
    "grok": Entry(
        why="a whole checkpoint: presharded experts are a rank's own file; heads as for deepseek; "
        "each sum has a norm behind it, which hides its scale unless its epsilon is as large as "
        "what it divides (grok.py:603); two layers as for gpt_oss",
        values={"num_key_value_heads": 4, "num_hidden_layers": 2, "rms_norm_eps": 1.0},
        after={"load_presharded_moe": False},
    ),
    "minimax_m3": Entry(
        why="lists with one number a layer (minimax_m3.py:1793); without its sparse attention, "
        "whose kernels a CPU lacks",
        after={
            "moe_layer_freq": [0, 1, 1, 1],
            "swiglu_alpha": 1.702,
            "swiglu_limit": 7.0,
            "qk_norm_type": "per_head",  # as its checkpoints; any other stops (minimax_m3.py:860)
            "sparse_attention_config": {
                "sparse_attention_freq": [0] * LAYERS,
                "sparse_num_index_heads": 2,
                "sparse_index_dim": 32,
                "sparse_block_size": 16,
                "sparse_init_block": 1,
                "sparse_local_block": 1,
                "sparse_topk_blocks": 4,
            },
        },
    ),
    "TransformersMoEForCausalLM": Entry(
        why="the fallback for models that the engine has not: any of transformers' will do",
        model_type="qwen3_moe",
    ),
    "mixtral": Entry(
        why="its checkpoints have no window, and the engine's model knows none; padded key-value "
        "heads, on CPU only, would have another width",
        values={"sliding_window": None, "num_key_value_heads": 4},
    ),
    "GraniteMoeSWAForCausalLM": Entry(
        why="its windows have sinks, which torch_native does not know",
        attention="triton",
    ),
    "gemma4_causal": Entry(
        why="experts are an option of the family, and heads as wide in every layer as here; "
        "two layers as for gpt_oss",
        values={
            "num_hidden_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"],
            "enable_moe_block": True,
            "top_k_experts": 2,
            "hidden_size_per_layer_input": 0,
            "global_head_dim": 32,
            "num_global_key_value_heads": 2,
            "swa_num_key_value_heads": 2,
            "swa_head_dim": 32,
        },
        drop=("per_layer_config",),
        attention="triton",
    ),
    "nemotron_h": Entry(
        why="without its mamba layers, which need kernels; the pattern has each other kind",
        after={
            "n_groups": 8,
            "layers_block_type": ["moe", "attention", "moe", "mlp"],
            "mtp_layers_block_type": ["attention", "moe"],
        },
    ),
    "phimoe": Entry(
        why="the engine's model has these biases whatever the file says",
        values={"lm_head_bias": True, "attention_bias": True},
    ),
    "mimo_v2": Entry(
        why="windows have their own numbers of heads, and patterns are lists of numbers",
        after={
            "hybrid_layer_pattern": [0, 1, 0, 1],
            "moe_layer_freq": [0, 1, 1, 1],
            "layernorm_epsilon": 1e-5,
            "topk_method": "noaux_tc",
            "sliding_window_size": 4,
            "swa_num_attention_heads": 4,
            "swa_num_key_value_heads": 2,
            "swa_head_dim": 32,
            "swa_v_head_dim": 32,
            "v_head_dim": 32,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "swa_rope_theta": 10000.0,
        },
        attention="triton",
    ),
    "gpt_oss": Entry(
        why="its attention has sinks, which torch_native does not know (the server refuses it), "
        "and which are not padded where the server pads key-value heads, on CPU only; "
        "two layers, one with a window: the interpreter takes minutes for more",
        values={
            "num_key_value_heads": 4,
            "num_hidden_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        after={"swiglu_limit": 7.0},  # its checkpoints'; the GPU's kernels ask for it
        attention="triton",
    ),
    "qwen3_vl_moe": Entry(
        why="a text model and a vision tower, whose pictures are added after each of the first "
        "three layers (qwen3_vl_moe.py:60 of 0.5.17), whatever the configuration says",
        parts={
            "text_config": {
                "rope_scaling": {"rope_type": "default", "mrope_section": [8, 4, 4]},
            },
            "vision_config": {
                "depth": 3,
                "num_heads": 4,
                "patch_size": 4,
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": [0, 1, 2],
            },
        },
    ),
    "olmoe": Entry(
        why="its key norm has hidden_size weights, which is one key head a query head; the engine "
        "never makes the chosen scores sum to one",
        values={"num_key_value_heads": 4, "norm_topk_prob": False},
    ),
}
