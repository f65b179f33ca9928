"""Who adds a mixture-of-experts block's partial sums up: the predicate a serving engine imports.

Standard library only. The predicate is sgl-project/sglang#23748's.
"""

from helper.config import ConfigError, MoeConfig, NoConfigError, current_config, use_config
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
    "MoeConfig",
    "NoConfigError",
    "Path",
    "SkipReason",
    "current_config",
    "should_skip_post_experts_all_reduce",
    "should_use_dp_reduce_scatterv",
    "should_use_flashinfer_cutlass_moe_fp4_allgather",
    "use_config",
]
