"""For `serve --patch`: SGLang 0.5.23 builds dense layers whole under `--moe-dense-tp-size 1`.

The layer boundary takes them to run on the rank's own rows. What some families ask for themselves
(`parallel_group="replicated"`) is asked for in all of them; nothing else changes.
"""

import re

from sglang.srt.layers import linear
from sglang.srt.layers.layer_boundary.layout import is_dense_ffn_fully_dp

DENSE = re.compile(r"\.(mlps?|feed_forward)\.(\d+\.)?(gate_up_proj|down_proj)$")


def whole(kind):
    """Layers of this class with the name of a dense block's own are not sharded."""
    made = kind.__init__

    def make(self, *positional, **named):
        if DENSE.search(named.get("prefix", "")) and is_dense_ffn_fully_dp():
            named["parallel_group"] = "replicated"
        made(self, *positional, **named)

    kind.__init__ = make


whole(linear.MergedColumnParallelLinear)
whole(linear.RowParallelLinear)
