"""A model configuration for any model: known names have small values, the rest is asked for.

Names are the Hugging Face conventions. A name that code reads with a default
(`getattr(config, "x", None)`) keeps that default; one that it cannot do without is learned from
the failed attempt and given a neutral value for the next.
"""

import re
from typing import Any

import torch

from verify.replay.witness import HIDDEN_SIZE

LAYERS = 3
EXPERTS = 16
INTERMEDIATE = 256

_KNOWN: dict[str, Any] = {
    "hidden_size": HIDDEN_SIZE,
    "num_hidden_layers": LAYERS,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "rope_scaling": None,
    "torch_dtype": torch.float32,
    "dtype": torch.float32,
    "architectures": ["Replayed"],
    "layer_types": ["full_attention"] * LAYERS,
    "scoring_func": "softmax",
    "topk_method": "greedy",
    "model_type": "replayed",
    "moe_layer_freq": 1,
    "decoder_sparse_step": 1,
    "first_k_dense_replace": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
}
_EXPERT_COUNTS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")


class MissingError(AttributeError):
    """The configuration lacks a name; `name` says which."""


class ModelConfig:
    """What a model's `config` argument is; `learned` are names from earlier attempts."""

    def __init__(self, *, learned: dict[str, Any]) -> None:
        self.__dict__.update(_KNOWN)
        self.__dict__.update(dict.fromkeys(_EXPERT_COUNTS, EXPERTS))
        self.__dict__.update(learned)

    def __getattr__(self, name: str) -> Any:
        raise MissingError(f"config has no {name}", name=name, obj=self)


# by how a name is built; the first pattern that fits decides
_NEUTRAL: tuple[tuple[str, bool | float], ...] = (
    (r"^(use|enable|is|has|tie|norm)_|_(bias|norm|gate)$", False),
    (r"intermediate|ffn_dim$", INTERMEDIATE),
    (r"(top_?k|per_tok|per_token)$|shared_expert", 1),
    (r"head_dim|_(dim|rank)$", 64),
    (r"eps(ilon)?$", 1e-6),
    (r"^(num|n)_|_(size|heads|length)$", 16),
    (r"", 1),
)


def neutral(name: str) -> bool | float:
    """A value for a name that code insists on."""
    return next(value for pattern, value in _NEUTRAL if re.search(pattern, name))
