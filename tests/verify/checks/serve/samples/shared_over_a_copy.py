"""For `serve --patch`: SGLang 0.5.23 shards shared experts over the ranks that add them up.

Those of one copy of the experts under `--moe-dp-size`; the release shards them over all ranks.
"""

import re

from sglang.srt.layers import linear
from sglang.srt.layers.moe.utils import post_experts_reduction_group

SHARED = re.compile(r"\.shared?_experts?\.(gate_up_proj|down_proj)$")
resolved = linear._resolve_linear_group


def resolve(name):
    """The group of a name; "copy" is the one that a block's output is summed over."""
    return post_experts_reduction_group() if name == "copy" else resolved(name)


def over_a_copy(kind):
    """Layers of this class with the name of a shared expert's are sharded over a copy's ranks."""
    made = kind.__init__

    def make(self, *positional, **named):
        if SHARED.search(named.get("prefix", "")):
            named["parallel_group"] = "copy"
        made(self, *positional, **named)

    kind.__init__ = make


linear._resolve_linear_group = resolve
over_a_copy(linear.MergedColumnParallelLinear)
over_a_copy(linear.RowParallelLinear)
