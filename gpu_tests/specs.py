"""One scaled-down specification per model of the migrated sites.

Structure is the public configuration's: experts chosen per token, expert groups, scoring,
correction bias, renormalisation, routed scaling, shared experts. Sizes are not: experts are few
and narrow, because which rank holds which partial sum does not depend on them.
"""

from dataclasses import dataclass, replace
from typing import Literal

Scoring = Literal["softmax", "sigmoid"]

# enough for every world size up to eight to divide, small enough for hundreds of cases a minute
HIDDEN = 32
INTERMEDIATE = 16
EXPERTS = 32
# of every RMSNorm
EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A block's structure. `config` names the public configuration it is taken from.

    `top_k` of `experts` are chosen per token; with `groups` > 1 only from the best `group_top_k`
    groups. `weight_on_input` scales an expert's input instead of its output. `shared` counts the
    shared experts, `shared_gated` puts a sigmoid gate on them, `shared_whole_under_fp4` says that
    each rank holds them whole while FP4 tokens are gathered (0.5.11's model files). A `dense` layer
    of the model has an MLP of `intermediate` in the place of router and experts.
    """

    model: str
    config: str
    public_experts: int
    top_k: int
    scoring: Scoring
    bias: bool = False
    groups: int = 1
    group_top_k: int = 1
    renormalise: bool = True
    routed_scaling: float = 1.0
    weight_on_input: bool = False
    shared: int = 0
    shared_gated: bool = False
    shared_whole_under_fp4: bool = False
    experts: int = EXPERTS
    hidden: int = HIDDEN
    intermediate: int = INTERMEDIATE
    dense: bool = False


_LING = ModelSpec(
    model="bailing_moe",
    config="Ling-flash-2.0",
    public_experts=256,
    top_k=8,
    scoring="sigmoid",
    bias=True,
    groups=8,
    group_top_k=4,
    routed_scaling=2.5,
    shared=1,
)
_QWEN3 = ModelSpec(
    model="qwen3_moe", config="Qwen3-235B-A22B", public_experts=128, top_k=8, scoring="softmax"
)
# sigmoid scores with a correction bias, one expert group
_NO_GROUPS = replace(_LING, groups=1, group_top_k=1)

SPECS: dict[str, ModelSpec] = {
    spec.model: spec
    for spec in (
        _LING,
        replace(_LING, model="bailing_moe_linear", config="Ring-flash-linear-2.0"),
        replace(_LING, model="deepseek_v2", config="DeepSeek-V3", shared_whole_under_fp4=True),
        replace(_NO_GROUPS, model="exaone_moe", config="K-EXAONE-236B-A23B", public_experts=128),
        replace(
            _NO_GROUPS,
            model="glm4_moe",
            config="GLM-4.5",
            public_experts=160,
            shared_whole_under_fp4=True,
        ),
        replace(
            _NO_GROUPS,
            model="hunyuan_v3",
            config="Hy3-preview",
            public_experts=192,
            routed_scaling=1.0,
        ),
        replace(_LING, model="llada2", config="LLaDA2.0-flash"),
        ModelSpec(
            model="llama4",
            config="Llama-4-Scout-17B-16E",
            public_experts=16,
            experts=16,
            top_k=1,
            scoring="sigmoid",
            renormalise=False,
            weight_on_input=True,
            shared=1,
        ),
        replace(
            _NO_GROUPS, model="mimo_v2_flash", config="MiMo-V2-Flash", routed_scaling=1.0, shared=0
        ),
        replace(_NO_GROUPS, model="minimax_m2", config="MiniMax-M2", routed_scaling=1.0, shared=0),
        replace(
            _QWEN3,
            model="qwen2_moe",
            config="Qwen2-57B-A14B",
            public_experts=64,
            renormalise=False,
            shared=1,
            shared_gated=True,
        ),
        _QWEN3,
        replace(_NO_GROUPS, model="sarvam_moe", config="sarvam-30b", public_experts=128, top_k=6),
        replace(_QWEN3, model="sdar_moe", config="SDAR-30B-A3B"),
        replace(
            _NO_GROUPS,
            model="step3p5",
            config="Step-3.5-Flash",
            public_experts=288,
            routed_scaling=3.0,
        ),
    )
}


def without_shared(spec: ModelSpec) -> ModelSpec:
    """The same block in a model that has no shared experts of its own."""
    return replace(spec, shared=0, shared_gated=False)


def dense_layer(spec: ModelSpec) -> ModelSpec:
    """The model's dense layers (`first_k_dense_replace`)."""
    return replace(without_shared(spec), dense=True)


def structure(spec: ModelSpec) -> ModelSpec:
    """What a layer is built from: nothing of it says whose it is, or where its parts are placed."""
    return replace(spec, model="", config="", public_experts=0, shared_whole_under_fp4=False)


def widened(spec: ModelSpec) -> ModelSpec:
    """The same structure in rows that GPU kernels take: 16-byte vectors in every rank's part."""
    return replace(spec, hidden=256, intermediate=128)
