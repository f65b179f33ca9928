"""For `serve --patch`: SGLang's predicate of 0.5.17 forgets one of who adds up later.

FORGETS in the environment names whom: `fusion` (the next layer's norm), `scatter` (the
communicator's reduce-scatter), `scatterv` (the reduce_scatterv for as many expert as attention
ranks) or `nobody`. ANNOUNCED=no: no layer announces its reduce-scatter, as those that are built
with `allow_reduce_scatter=False` do not, so that of a reduce_scatterv only the predicate knows.
"""

import os
import sys

from sglang.srt.layers.communicator import LayerCommunicator
from sglang.srt.layers.moe import utils
from sglang.srt.runtime_context import get_forward

NAME = "should_skip_post_experts_all_reduce"
LATER = {
    "nobody": lambda: False,
    "fusion": lambda: get_forward().fuse_mlp_allreduce,
    "scatter": lambda: get_forward().mlp_reduce_scatter,
    "scatterv": utils.should_use_dp_reduce_scatterv,
}
del LATER[os.environ["FORGETS"]]


def forgetful(*, is_tp_path):
    """Whether one of those it remembers adds the ranks' parts up."""
    del is_tp_path
    return any(adds() for adds in LATER.values())


for name, module in list(sys.modules.items()):
    if name.startswith("sglang.srt.") and hasattr(module, NAME):
        setattr(module, NAME, forgetful)
if os.environ.get("ANNOUNCED") == "no":
    LayerCommunicator.should_use_reduce_scatter = lambda self, forward_batch: False
