"""SGLang's layers, step by step, as `prove` is told of them."""

from verify.engines.ledger import Ledger, Reader
from verify.engines.sglang.definitions import Definitions
from verify.engines.sglang.layer import RELEASE_0_5_11, applies, plan, sites
from verify.engines.sglang.steps import STEPS

READERS = {
    "nothing": Reader(
        said="no later step sums",
        repair="Reduce over the ranks that hold different parts, and over no others.",
    ),
    "dp_reduce_scatterv": Reader(
        said="LayerCommunicator sums by reduce_scatterv over the TP group",
        repair="Skip where DP holds; raise DP only where the sizes fit the group.",
    ),
    "dp_reduce_scatter": Reader(
        said="LayerCommunicator sums by reduce-scatter over the TP group",
        repair="Skip where the layer reduce-scatters.",
    ),
    "dp_scatter": Reader(
        said="LayerCommunicator copies each group's rows out and sums nothing",
        repair="Reduce before a plain scatter.",
    ),
    "moe_cp_slice": Reader(
        said="LayerCommunicator copies each context's rows out and sums nothing",
        repair="Reduce before the rows are copied out.",
    ),
    "boundary": Reader(
        said="the stage boundary sums over {group}",
        repair="Sum over the ranks that hold different parts.",
    ),
    "fused norm": Reader(
        said="the next layer's fused norm sums over {group} only",
        repair="Announce fusion only where one group holds the whole sum.",
    ),
    "aiter norm": Reader(
        said="the next layer's aiter norm sums over the TP group",
        repair="Announce fusion only where the block leaves a partial sum over the TP group.",
    ),
    "unfused norm": Reader(
        said="prepare_attn cannot fuse and sums over {group} only",
        repair="Sum over the group that the block skipped, not over MoE-TP alone.",
    ),
    "declined": Reader(
        said="the fused kernel declines the tensor and the norm runs without a sum",
        repair="Reduce in the norm when the kernel returns nothing.",
    ),
    "untagged": Reader(
        said="the layer announces fusion and never tags the tensor: the next one does not sum",
        repair="Tag the tensor, or do not tell the block to skip.",
    ),
    "stage completes": Reader(
        said="the model completes the sum at the end of the pipeline stage",
        repair="Complete the sum over the ranks that hold different parts.",
    ),
    "other stage": Reader(
        said="the tag that asks the next layer to sum is lost on the way to the next stage",
        repair="Do not announce fusion in the last layer of a pipeline stage.",
    ),
    "final norm": Reader(
        said="the last layer announces fusion, and the norm after it sums nothing",
        repair="Build the last layer's communicator with is_last_layer.",
    ),
}

LEDGER = Ledger(
    release=RELEASE_0_5_11,
    steps=STEPS,
    plan=plan,
    sites=sites,
    applies=applies,
    readers=READERS,
    scatters={"DP": "dp_reduce_scatterv", "RS": "dp_reduce_scatter"},
    own_rows="dp_scatter",
    definitions=lambda texts: Definitions(texts=texts),
)
