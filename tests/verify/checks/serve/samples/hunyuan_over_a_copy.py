"""For `serve --patch`: Hunyuan of SGLang 0.5.23 adds up over the ranks of one copy of its experts.

Under `--moe-dp-size`; the release adds up over all ranks, each copy's parts again. Its shared
experts are sharded over the same ranks, so that one sum does for both.
"""

from functools import partial

from sglang.srt.layers import linear
from sglang.srt.layers.moe.utils import post_experts_reduction_group
from sglang.srt.models import hunyuan

resolved = linear._resolve_linear_group
made = hunyuan.HunYuanMLP.__init__


def resolve(name):
    """The group of a name; "copy" is that of one copy's ranks."""
    return post_experts_reduction_group() if name == "copy" else resolved(name)


def make(self, *positional, **named):
    """Shared experts, which leave their sum to the block, over a copy's ranks."""
    kept = hunyuan.MergedColumnParallelLinear, hunyuan.RowParallelLinear
    if named.get("reduce_results") is False:
        hunyuan.MergedColumnParallelLinear = partial(kept[0], parallel_group="copy")
        hunyuan.RowParallelLinear = partial(kept[1], parallel_group="copy")
    made(self, *positional, **named)
    hunyuan.MergedColumnParallelLinear, hunyuan.RowParallelLinear = kept


linear._resolve_linear_group = resolve
hunyuan.HunYuanMLP.__init__ = make
hunyuan.tensor_model_parallel_all_reduce = lambda part: post_experts_reduction_group().all_reduce(
    part
)
