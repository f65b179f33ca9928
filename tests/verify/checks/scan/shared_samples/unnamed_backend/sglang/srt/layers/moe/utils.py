from enum import Enum

from sglang.srt.layers.settings import (
    attention_is_data_parallel,
    fp4_is_gathered,
    sizes_match,
)
from sglang.srt.server_args import SETTINGS


def should_use_flashinfer_cutlass_moe_fp4_allgather():
    return (
        get_moe_a2a_backend().is_none()
        and fp4_is_gathered()
        and attention_is_data_parallel()
        and sizes_match()
    )


def should_use_dp_reduce_scatterv():
    return (
        not should_use_flashinfer_cutlass_moe_fp4_allgather()
        and get_moe_a2a_backend().is_none()
        and attention_is_data_parallel()
        and sizes_match()
    )


class MoeA2ABackend(Enum):
    NONE = "none"
    DEEPEP = "deepep"
    MORI = "mori"
    FLASHINFER = "flashinfer"

    def is_none(self):
        return self == MoeA2ABackend.NONE

    def is_deepep(self):
        return self == MoeA2ABackend.DEEPEP

    def is_mori(self):
        return self == MoeA2ABackend.MORI

    def is_flashinfer(self):
        return self == MoeA2ABackend.FLASHINFER


def get_moe_a2a_backend():
    return SETTINGS.moe_a2a_backend
