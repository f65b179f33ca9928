"""For `serve --patch`: layers of SGLang 0.5.10.post1 ask helper's plan instead of their own guards.

Qwen3-MoE and GLM-4-MoE. Their open-coded guards are given nothing to sum with; what they would have
decided, and what the communicator would have, is read from one plan.
"""

from sglang.srt import distributed
from sglang.srt.layers.communicator import LayerCommunicator
from sglang.srt.models import glm4_moe, qwen3_moe
from sglang.srt.server_args import get_global_server_args

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


announces_fusion = LayerCommunicator.should_fuse_mlp_allreduce_with_next_layer


def plan_of(communicator, forward_batch):
    """The plan of the layer that `communicator` belongs to, in this forward pass."""
    sizes = config()
    equal = sizes.attn_dp_size > 1 and forward_batch.dp_padding_mode.is_max_len()
    following = "fused norm" if announces_fusion(communicator, forward_batch) else "norm"
    communicator.plan = plan_layer(
        sizes,
        Layer(
            block=communicator.block,
            next="model end" if communicator.is_last_layer else following,
            equal_rows=equal,
            # this release hands rows back by a reduce-scatter only where they are equally many
            may_scatter=equal and communicator.allow_reduce_scatter,
            dense_on_own_rows=communicator.block == "dense" and server_keeps_dense_whole(),
        ),
    )
    return communicator.plan


def server_keeps_dense_whole():
    """`--moe-dense-tp-size 1`."""
    return get_global_server_args().moe_dense_tp_size == 1


def fuses(self, forward_batch):
    return plan_of(self, forward_batch).consumer.step == "fused norm"


def scatters(self, forward_batch):
    return plan_of(self, forward_batch).consumer.step == "reduce_scatter"


LayerCommunicator.should_fuse_mlp_allreduce_with_next_layer = fuses
LayerCommunicator.should_use_reduce_scatter = scatters


def follow(layer_class, block_class):
    """The layer's block sums as the plan says, whoever the block is."""
    made, computed = layer_class.__init__, block_class.forward

    def init(self, *args, **named):
        made(self, *args, **named)
        self.layer_communicator.block = "experts" if isinstance(self.mlp, block_class) else "dense"
        object.__setattr__(self.mlp, "communicator", self.layer_communicator)

    def forward(self, hidden_states, forward_batch=None, *flags):
        out = computed(self, hidden_states, forward_batch)
        return SUMS[self.communicator.plan.block_sum](out)

    layer_class.__init__, block_class.forward = init, forward


def follow_dense(mlp_class):
    """A dense MLP sums in its last linear layer, over the TP group, unless told otherwise."""
    computed = mlp_class.forward

    def forward(self, x, forward_batch=None, *flags):
        if not hasattr(self, "communicator"):
            return computed(self, x, forward_batch, *flags)
        summed = self.communicator.plan.block_sum
        assert summed in ("none", "tp")
        return computed(self, x, forward_batch, use_reduce_scatter=summed == "none")

    mlp_class.forward = forward


qwen3_moe.moe_expert_parallel_all_reduce = SUMS["none"]
qwen3_moe.moe_tensor_model_parallel_all_reduce = SUMS["none"]
glm4_moe.tensor_model_parallel_all_reduce = SUMS["none"]
follow(qwen3_moe.Qwen3MoeDecoderLayer, qwen3_moe.Qwen3MoeSparseMoeBlock)
follow(glm4_moe.Glm4MoeDecoderLayer, glm4_moe.Glm4MoeSparseMoeBlock)
follow_dense(glm4_moe.Glm4MoeMLP)
