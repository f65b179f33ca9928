from enum import IntEnum, auto

import torch
from sglang.srt.distributed.parallel_state import get_tp_group

_DP_SIZE = 1
_WIDTH = 0
_ROWS = 0


class DpPaddingMode(IntEnum):
    MAX_LEN = auto()
    SUM_LEN = auto()

    def is_max_len(self):
        return self == DpPaddingMode.MAX_LEN

    @classmethod
    def get_default_mode_in_cuda_graph(cls):
        return cls.MAX_LEN


def initialize_dp_attention(server_args, model_config):
    global _DP_SIZE, _WIDTH
    _DP_SIZE = server_args.dp_size if server_args.enable_dp_attention else 1
    _WIDTH = model_config.hidden_size


def get_attention_dp_size():
    return _DP_SIZE


def get_attention_dp_rank():
    return get_tp_group().rank_in_group * _DP_SIZE // get_tp_group().world_size


def set_dp_buffer_len(global_dp_buffer_len, local_dp_buffer_len):
    global _ROWS
    _ROWS = local_dp_buffer_len


def get_local_dp_buffer():
    return torch.empty((_ROWS, _WIDTH))
