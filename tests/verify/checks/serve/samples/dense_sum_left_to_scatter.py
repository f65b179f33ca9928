"""For `serve --patch`: dense layers of SGLang 0.5.11 leave their sum to the layer's end.

Where that reduce-scatters (attention data parallelism with `--ep-size`), which the flags that a
dense layer is given do not say; the release adds up in both places.
"""

import re

from sglang.srt.layers.linear import RowParallelLinear
from sglang.srt.layers.moe.utils import should_use_dp_reduce_scatterv

DENSE = re.compile(r"\.mlp\.down_proj$")
made, forward = RowParallelLinear.__init__, RowParallelLinear.forward


def make(self, *positional, **named):
    made(self, *positional, **named)
    self.ends_a_dense_layer = bool(DENSE.search(named.get("prefix", "")))


def run(self, rows, skip_all_reduce=False, **named):
    later = self.ends_a_dense_layer and should_use_dp_reduce_scatterv()
    return forward(self, rows, skip_all_reduce or later, **named)


RowParallelLinear.__init__ = make
RowParallelLinear.forward = run
