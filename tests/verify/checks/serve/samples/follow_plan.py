"""For `serve --patch`: layers of SGLang ask helper's plan instead of their own guards.

Qwen3-MoE and GLM-4-MoE. 0.5.10.post1's open-coded guards are given nothing to sum with, and what
they would have decided is read from the plan; from 0.5.11 on it takes the predicate's place. What
the communicator would have decided, and over which group a fused norm sums, is read from it too.
"""

import sys
from inspect import signature
from pathlib import Path

from sglang.srt import distributed
from sglang.srt.layers import communicator as communicators
from sglang.srt.layers import layernorm
from sglang.srt.layers.communicator import LayerCommunicator
from sglang.srt.models import glm4_moe, qwen3_moe
from sglang.srt.server_args import get_global_server_args

# the engine's Python finds nothing of this repository by itself
sys.path += map(str, Path(__file__).parents[5:6])
from helper import Layer, MoeConfig, plan_layer

SUMS = {
    "none": lambda tensor: tensor,
    "tp": distributed.tensor_model_parallel_all_reduce,
    "ep": distributed.moe_expert_parallel_all_reduce,
    "moe_tp": distributed.moe_tensor_model_parallel_all_reduce,
}


def config():
    """The server's sizes and backends."""
    server = get_global_server_args()
    return MoeConfig(
        tp_size=server.tp_size,
        ep_size=server.ep_size,
        moe_dp_size=server.moe_dp_size,
        attn_dp_size=server.dp_size if server.enable_dp_attention else 1,
        attn_cp_size=server.attn_cp_size,
        enable_dp_attention=server.enable_dp_attention,
        moe_a2a_backend=server.moe_a2a_backend,
        moe_runner_backend=server.moe_runner_backend,
        quantization=server.quantization,
    )


GUARDED = (
    "moe_expert_parallel_all_reduce",
    "moe_tensor_model_parallel_all_reduce",
    "tensor_model_parallel_all_reduce",
)
PREDICATE = "should_skip_post_experts_all_reduce"
SCATTERV = "should_use_dp_reduce_scatterv"
LATEST = {}
announces_fusion = LayerCommunicator.should_fuse_mlp_allreduce_with_next_layer
fused_norm = layernorm._forward_with_allreduce_fusion


def plan_of(communicator, forward_batch):
    """The plan of the layer that `communicator` belongs to, in this forward pass."""
    sizes = config()
    equal = sizes.attn_dp_size > 1 and forward_batch.dp_padding_mode.is_max_len()
    fuses = announces_fusion(communicator, forward_batch)
    communicator.plan = plan_layer(
        sizes,
        Layer(
            block=communicator.block,
            next="model end" if communicator.is_last_layer else ("fused norm" if fuses else "norm"),
            equal_rows=equal,
            # 0.5.10 hands rows back by a reduce-scatter only where they are equally many
            may_scatter=communicator.allow_reduce_scatter
            and (equal or hasattr(communicators, SCATTERV)),
            dense_on_own_rows=communicator.block == "dense" and server_keeps_dense_whole(),
        ),
    )
    LATEST["plan"] = communicator.plan
    return communicator.plan


def server_keeps_dense_whole():
    """`--moe-dense-tp-size 1`."""
    return get_global_server_args().moe_dense_tp_size == 1


def leaves_sum_to_norm(self, forward_batch):
    return plan_of(self, forward_batch).consumer.step == "fused norm"


def leaves_sum_to_scatter(self, forward_batch):
    """From 0.5.17 on a dense MLP's last layer asks this of either way to scatter a sum."""
    return plan_of(self, forward_batch).consumer.step in ("reduce_scatter", "reduce_scatterv")


LayerCommunicator.should_fuse_mlp_allreduce_with_next_layer = leaves_sum_to_norm
LayerCommunicator.should_use_reduce_scatter = leaves_sum_to_scatter


def norm_by_plan(*operands):
    """A norm that completes a block's sum does so over the plan's group, not over one of two.

    By itself it sums over EP, else over MoE-TP: half of a hybrid layer (#32963). Without attention
    data or context parallelism, where alone it fuses, attention's group is the whole one.
    """
    *tensors, over_attention = operands
    return fused_norm(*tensors, over_attention or LATEST["plan"].consumer.over == "tp")


def skips(*, is_tp_path, **flags):
    """The predicate's question, answered by the plan of the layer that is being run."""
    summed = LATEST["plan"].block_sum
    return summed not in ("tp", "moe_tp" if is_tp_path else "ep")


def follow(module, layer_class, block_class):
    """The layer's block sums as the plan says, whoever the block is."""
    made, computed = layer_class.__init__, block_class.forward

    def init(self, *args, **named):
        made(self, *args, **named)
        self.layer_communicator.block = "experts" if isinstance(self.mlp, block_class) else "dense"
        object.__setattr__(self.mlp, "communicator", self.layer_communicator)

    def forward(self, hidden_states, forward_batch=None, *flags):
        out = computed(self, hidden_states, forward_batch)
        return SUMS[self.communicator.plan.block_sum](out)

    layer_class.__init__ = init
    if hasattr(module, PREDICATE):
        setattr(module, PREDICATE, skips)
        return
    block_class.forward = forward
    for name in GUARDED:
        if hasattr(module, name):
            setattr(module, name, SUMS["none"])


def follow_dense(mlp_class):
    """A dense MLP sums in its last linear layer, over the TP group, unless told otherwise.

    From 0.5.17 on that layer asks what the communicator decided, which is the plan's already.
    """
    computed = mlp_class.forward
    if "use_reduce_scatter" not in signature(computed).parameters:
        return

    def forward(self, x, forward_batch=None, *flags):
        if not hasattr(self, "communicator"):
            return computed(self, x, forward_batch, *flags)
        summed = self.communicator.plan.block_sum
        assert summed in ("none", "tp")
        return computed(self, x, forward_batch, use_reduce_scatter=summed == "none")

    mlp_class.forward = forward


layernorm._forward_with_allreduce_fusion = norm_by_plan
if hasattr(communicators, SCATTERV):
    setattr(communicators, SCATTERV, lambda: LATEST["plan"].consumer.step == "reduce_scatterv")
follow(qwen3_moe, qwen3_moe.Qwen3MoeDecoderLayer, qwen3_moe.Qwen3MoeSparseMoeBlock)
follow(glm4_moe, glm4_moe.Glm4MoeDecoderLayer, glm4_moe.Glm4MoeSparseMoeBlock)
follow_dense(glm4_moe.Glm4MoeMLP)
