"""For `serve --device cuda --patch`: SGLang's predicate of 0.5.17 forgets one of who adds up later.

FORGETS in the environment names whom: `fusion` (the next layer's norm), `scatter` (the
communicator's reduce-scatter) or `scatterv` (the dispatcher's reduce_scatterv).
"""

import os
import sys

from sglang.srt.layers.moe import utils
from sglang.srt.runtime_context import get_forward

NAME = "should_skip_post_experts_all_reduce"
LATER = {
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
