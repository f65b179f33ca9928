"""The original guards that sgl-project/sglang#23748 replaced: 22 sites in 15 models, data only.

Nothing here may know the predicate that replaced them: an oracle that calls what it judges
judges nothing.
"""

from oracles import (
    bailing_moe,
    bailing_moe_linear,
    deepseek_v2,
    exaone_moe,
    glm4_moe,
    hunyuan_v3,
    llada2,
    llama4,
    mimo_v2_flash,
    minimax_m2,
    qwen2_moe,
    qwen3_moe,
    sarvam_moe,
    sdar_moe,
    step3p5,
)
from oracles._site import Site

SITES: tuple[Site, ...] = (
    *bailing_moe.SITES,
    *bailing_moe_linear.SITES,
    *deepseek_v2.SITES,
    *exaone_moe.SITES,
    *glm4_moe.SITES,
    *hunyuan_v3.SITES,
    *llada2.SITES,
    *llama4.SITES,
    *mimo_v2_flash.SITES,
    *minimax_m2.SITES,
    *qwen2_moe.SITES,
    *qwen3_moe.SITES,
    *sarvam_moe.SITES,
    *sdar_moe.SITES,
    *step3p5.SITES,
)

__all__ = ["SITES", "Site"]
