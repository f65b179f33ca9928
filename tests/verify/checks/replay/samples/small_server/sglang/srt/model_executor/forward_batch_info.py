from dataclasses import dataclass
from enum import IntEnum, auto
from typing import Any

from sglang.srt.layers.dp_attention import DpPaddingMode, set_dp_buffer_len


class ForwardMode(IntEnum):
    EXTEND = auto()
    DECODE = auto()
    IDLE = auto()


@dataclass
class ForwardBatch:
    forward_mode: ForwardMode
    input_ids: Any
    dp_padding_mode: DpPaddingMode | None = None

    def prepare_mlp_sync_batch(self, model_runner):
        extend = self.forward_mode == ForwardMode.EXTEND
        self.dp_padding_mode = DpPaddingMode.SUM_LEN if extend else DpPaddingMode.MAX_LEN
        set_dp_buffer_len(sum(self.global_num_tokens_cpu), len(self.input_ids))
