"""A server small enough to read: the parts that a layer's sums pass through, and no more."""

from dataclasses import dataclass

_ARGS = None


@dataclass
class ServerArgs:
    model_path: str
    tp_size: int = 1
    ep_size: int = 1
    dp_size: int = 1
    enable_dp_attention: bool = False


def set_global_server_args_for_scheduler(server_args):
    global _ARGS
    _ARGS = server_args


def get_global_server_args():
    return _ARGS
