"""For `serve --patch`: SDAR shards its fused projection over the attention group."""

from functools import partial

from sglang.srt.models import sdar_moe

sdar_moe.QKVParallelLinear = partial(sdar_moe.QKVParallelLinear, parallel_group="attn_tp")
