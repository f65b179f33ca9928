"""A model configuration for any model: known names have small values, the rest is asked for.

Names are the Hugging Face conventions. A name that code reads with a default
(`getattr(config, "x", None)`) keeps that default; one that it cannot do without is learned from
the failed attempt and given a neutral value for the next.
"""

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch

from verify.emulator.witness import HIDDEN_SIZE

# two a pipeline stage, the first of them dense where a model has dense layers
LAYERS = 4
EXPERTS = 16
INTERMEDIATE = 256


class Neutral(int):
    """A number that is also a list, a text and a function: what an unknown setting is read as."""

    def __getitem__(self, key: object) -> "Neutral":
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter((self,))

    def __len__(self) -> int:
        return LAYERS

    def split(self, separator: str) -> list[str]:
        """As a list of layers in words: all but the first."""
        return [str(layer) for layer in range(1, LAYERS)]

    def __contains__(self, item: object) -> bool:
        return False

    def __call__(self, *args: object, **options: object) -> "Neutral":
        """The same number."""
        return self


class Rope(dict[str, Any]):
    """Parameters of rotary embeddings, the same for every type of layer."""

    def get(self, name: str, default: Any = None) -> Any:
        """What a key holds; for a type of layer, all of it."""
        return self if name.endswith("_attention") else super().get(name, default)


class PerLayer(list[Any]):
    """A value for every layer, those of a draft too, which counts on from the last.

    As a frequency it is one: every layer number is a multiple.
    """

    def __getitem__(self, place: Any) -> Any:
        return super().__getitem__(place % LAYERS if isinstance(place, int) else place)

    def __rmod__(self, number: int) -> int:
        return 0


_KNOWN: dict[str, Any] = {
    "hidden_size": HIDDEN_SIZE,
    "num_hidden_layers": LAYERS,
    "hidden_act": "silu",
    "hidden_activation": "gelu_pytorch_tanh",
    "intermediate_size": Neutral(INTERMEDIATE),
    "moe_intermediate_size": Neutral(INTERMEDIATE),
    "rms_norm_eps": 1e-6,
    "rope_parameters": Rope(rope_type="default", rope_theta=10000.0),
    "rope_scaling": None,
    "torch_dtype": torch.float32,
    "dtype": torch.float32,
    "params_dtype": torch.float32,
    "normalization": "RMSNorm",
    "qk_norm_type": "per_head",
    "activation_func": "swiglu",
    "gated_linear_unit": True,
    "max_position_embeddings": 64,
    "architectures": ["Replayed"],
    "layer_types": PerLayer(["full_attention"] * LAYERS),
    "mlp_layer_types": PerLayer(["dense", *["sparse"] * (LAYERS - 1)]),
    "mtp_hybrid_override_pattern": "E",
    # of a draft; the class around its stack puts the draft's pattern in the target's place
    "hybrid_override_pattern": PerLayer(["E"] * LAYERS),
    "n_shared_experts": Neutral(1),
    "num_shared_experts": Neutral(1),
    "interleave_moe_layer_step": 2,
    "num_nextn_predict_layers": 1,
    "scoring_func": "softmax",
    "topk_method": "greedy",
    "moe_layer_freq": PerLayer([0, *[1] * (LAYERS - 1)]),
    "is_moe_layer": PerLayer([False, *[True] * (LAYERS - 1)]),
    "is_moe": True,
    "enable_moe_block": True,
    "moe_layer_start_index": Neutral(1),
    "num_dense_layers": 1,
    "decoder_sparse_step": Neutral(1),
    "use_moe_router_bias": True,
    "first_k_dense_replace": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
}


_LAYER_TYPES = ("layer_types", "layers_block_type", "hybrid_override_pattern")
_EXPERT_COUNTS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")


class MissingError(AttributeError):
    """The configuration lacks a name; `name` says which."""


class ModelConfig:
    """What a model's `config` argument is; `learned` are names from earlier attempts."""

    def __init__(
        self, *, learned: dict[str, Any], layer_type: str | None = None, model_type: str
    ) -> None:
        self.__dict__.update(_KNOWN, model_type=model_type)
        if layer_type is not None:
            self.__dict__.update(dict.fromkeys(_LAYER_TYPES, PerLayer([layer_type] * LAYERS)))
        self.__dict__.update(dict.fromkeys(_EXPERT_COUNTS, Neutral(EXPERTS)))
        self.__dict__.update((k, v) for k, v in learned.items() if "_config" not in k)
        self.__dict__["_learned"] = learned

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def __contains__(self, name: str) -> bool:
        return name in self.__dict__

    def __call__(self, *args: object) -> "ModelConfig":
        """The configuration of one layer is that of all."""
        return self

    def __getattr__(self, name: str) -> Any:
        if "_config" in name and name in self.__dict__.get("_learned", {}):
            return self
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


def neutral(name: str) -> float:
    """A value for a name that code insists on."""
    value = next(value for pattern, value in _NEUTRAL if re.search(pattern, name))
    return Neutral(value) if isinstance(value, int) else value


class _PlainConfig:
    """A model of no special architecture: no name that marks one is there."""

    model_type = "replayed"
    architectures = ("Replayed",)
    hidden_size = HIDDEN_SIZE
    num_hidden_layers = LAYERS
    num_attention_heads = num_key_value_heads = head_dim = 16
    max_position_embeddings = vocab_size = 64
    dtype = torch_dtype = torch.float32

    def get_text_config(self) -> "_PlainConfig":
        """It is all text."""
        return self


# what a server knows of its model before it builds it
PLAIN_MODEL = SimpleNamespace(
    hf_config=_PlainConfig(),
    hf_text_config=_PlainConfig(),
    hidden_size=HIDDEN_SIZE,
    dtype=torch.float32,
)
