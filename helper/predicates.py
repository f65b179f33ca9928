"""The two skip reasons that are read from the runtime configuration.

Same rules as release 0.5.11's `layers/moe/utils.py`.
"""

from helper.config import MoeConfig, current_config


def uses_flashinfer_fp4_allgather(config: MoeConfig) -> bool:
    """FI for one configuration: dispatch gathers FP4 tokens, combine sums them back."""
    return (
        not config.disable_flashinfer_cutlass_moe_fp4_allgather
        and config.moe_a2a_backend == "none"
        and config.moe_runner_backend == "flashinfer_cutlass"
        and config.enable_dp_attention
        and config.quantization == "modelopt_fp4"
        and config.ep_size == config.attn_dp_size
    )


def uses_dp_reduce_scatterv(config: MoeConfig) -> bool:
    """DP for one configuration: LayerCommunicator sums by reduce_scatterv. Excludes FI."""
    return (
        not uses_flashinfer_fp4_allgather(config)
        and config.moe_a2a_backend == "none"
        and config.enable_dp_attention
        and config.attn_dp_size > 1
        and config.ep_size == config.attn_dp_size
    )


def should_use_flashinfer_cutlass_moe_fp4_allgather() -> bool:
    """FI in the current configuration. Raises `NoConfigError` when none is set."""
    return uses_flashinfer_fp4_allgather(current_config())


def should_use_dp_reduce_scatterv() -> bool:
    """DP in the current configuration. Raises `NoConfigError` when none is set."""
    return uses_dp_reduce_scatterv(current_config())
