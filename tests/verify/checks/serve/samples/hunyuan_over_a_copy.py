"""For `serve --patch`: Hunyuan of SGLang 0.5.23 adds up over the ranks of one copy of its experts.

Under `--moe-dp-size`; the release adds up over all ranks, each copy's parts again. Its shared
experts are sharded over the same ranks, so that one sum does for both.
"""

from sglang.srt.layers import linear
from sglang.srt.layers.moe.utils import post_experts_reduction_group
from sglang.srt.models import hunyuan

resolved = linear._resolve_linear_group


def resolve(name):
    """The group of a name; "copy" is that of one copy's ranks."""
    return post_experts_reduction_group() if name == "copy" else resolved(name)


def over_a_copy(kind):
    """Layers of this class with the name of a shared expert's are sharded over a copy's ranks."""
    made = kind.__init__

    def make(self, *positional, **named):
        if ".shared_mlp." in named.get("prefix", ""):
            named["parallel_group"] = "copy"
        made(self, *positional, **named)

    kind.__init__ = make


linear._resolve_linear_group = resolve
over_a_copy(linear.MergedColumnParallelLinear)
over_a_copy(linear.RowParallelLinear)
hunyuan.tensor_model_parallel_all_reduce = lambda part: post_experts_reduction_group().all_reduce(
    part
)
