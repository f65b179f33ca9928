"""Who adds a mixture-of-experts block's partial sums up: the predicate a serving engine imports.

Standard library only. The predicate is sgl-project/sglang#23748's.
"""

from helper.config import ConfigError, MoeConfig, NoConfigError, current_config, use_config
from helper.layer import Layer
from helper.plan import Consumer, Placement, Plan, PlanError, plan_layer
from helper.predicates import (
    should_use_dp_reduce_scatterv,
    should_use_flashinfer_cutlass_moe_fp4_allgather,
)
from helper.reasons import (
    PATHS,
    SKIP_REASONS,
    Path,
    SkipReason,
    should_skip_post_experts_all_reduce,
)

__all__ = [
    "PATHS",
    "SKIP_REASONS",
    "ConfigError",
    "Consumer",
    "Layer",
    "MoeConfig",
    "NoConfigError",
    "Path",
    "Placement",
    "Plan",
    "PlanError",
    "SkipReason",
    "current_config",
    "plan_layer",
    "should_skip_post_experts_all_reduce",
    "should_use_dp_reduce_scatterv",
    "should_use_flashinfer_cutlass_moe_fp4_allgather",
    "use_config",
]
