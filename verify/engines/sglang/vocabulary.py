"""The names SGLang gives to its building blocks; no model, block or layer is named here.

Collectives, the flags and where they are published, the communicator's and the boundary's methods,
the linear and expert layers that leave or complete a partial sum. Read from 0.5.1 to 0.5.23.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from verify.interpreter.values import Axis

MODELS = "sglang/srt/models/"
MODELS_PACKAGE = "sglang.srt.models"  # the same, as imports write it
LAYERS = "sglang/srt/layers/"

# what a collective sums over; the whole TP group covers expert and MoE tensor parallelism in one
WHOLE: tuple[Axis, ...] = ("EP", "MOE_TP", "TP", "ATTN_TP")
COLLECTIVES: Mapping[str, tuple[Axis, ...]] = {
    "tensor_model_parallel_all_reduce": WHOLE,
    "tensor_model_parallel_quant_all_reduce": WHOLE,
    "moe_expert_parallel_all_reduce": ("EP",),
    "moe_tensor_model_parallel_all_reduce": ("MOE_TP",),
    "attention_tensor_model_parallel_all_reduce": ("ATTN_TP",),
    "attention_tensor_model_parallel_quant_all_reduce": ("ATTN_TP",),
    "attn_tp_all_reduce": ("ATTN_TP",),
}
# a group's own method, by the word that its expression ends in
GROUP_METHODS = ("all_reduce", "reduce_scatter", "reduce_scatterv", "reduce_scatter_tensor")
GROUPS: Mapping[str, tuple[Axis, ...]] = {
    "moe_ep_group": ("EP",),
    "moe_tp_group": ("MOE_TP",),
    "attn_tp_group": ("ATTN_TP",),
    "attention_tp_group": ("ATTN_TP",),
    "tp_group": WHOLE,
}

# functions that write the sum of their second argument into their first
SCATTER_SUMS: Mapping[str, tuple[Axis, ...]] = {
    "dp_reduce_scatter_tensor": WHOLE,
    "dp_reduce_scatterv": WHOLE,
    "attn_tp_reduce_scatter_tensor": ("ATTN_TP",),
}
# ... and one that only moves each rank's own rows there
MOVES_ROWS = "dp_scatter"


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A skip reason: what it says of a layer, and under which names sources hand it around.

    `functions` compute it, `carries` are parameters and published fields that hand it on, and
    `asked` are the communicator's methods that answer it.
    """

    name: str
    says: str
    functions: tuple[str, ...] = ()
    carries: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()


# one line a flag, in row order: whatever is known of flags follows from here
SKIP_FLAGS = (
    Flag(
        name="AF",
        says="the layer fuses the all-reduce into the next norm",
        carries=("should_allreduce_fusion", "fuse_mlp_allreduce"),
        asked=("should_fuse_mlp_allreduce_with_next_layer",),
    ),
    Flag(
        name="RS",
        says="the communicator reduce-scatters",
        carries=("use_reduce_scatter", "should_use_reduce_scatter", "mlp_reduce_scatter"),
        asked=("should_use_reduce_scatter",),
    ),
    Flag(
        name="DP",
        says="attention DP with EP uses reduce_scatterv",
        functions=("should_use_dp_reduce_scatterv",),
    ),
    Flag(
        name="FI",
        says="the FP4 dispatcher sums in combine",
        functions=("should_use_flashinfer_cutlass_moe_fp4_allgather",),
    ),
)
FLAGS = tuple(flag.name for flag in SKIP_FLAGS)
FLAG_FUNCTIONS = {name: flag.name for flag in SKIP_FLAGS for name in flag.functions}
FLAG_NAMES = {name: flag.name for flag in SKIP_FLAGS for name in flag.carries}
# 0.5.21's boundary answers before a layer runs what the communicator's methods do elsewhere: which
# reduce-scatter follows, whether a sum is left to it, and whether to the next layer
BOUNDARY = "OutputBoundary"
BOUNDARY_ANSWERS = (
    "_postprocess_dp_step",
    "_ffn_leaves_sum_to_reduce_scatter",
    "_ffn_sum_moves_to_next_layer",
)
COMMUNICATOR_FLAGS = {name: flag.name for flag in SKIP_FLAGS for name in flag.asked}
FORWARD_CONTEXT = "get_forward"

COMMUNICATOR_FILE = "sglang/srt/layers/communicator.py"
ATTENTION_FILE = "sglang/srt/layers/dp_attention.py"
NORMS_FILE = "sglang/srt/layers/layernorm.py"
FACTORIES_FILE = "sglang/srt/layers/layer_boundary/factories.py"
PARALLEL_STATE_FILE = "sglang/srt/distributed/parallel_state.py"
COMMUNICATOR = "LayerCommunicator"
COMMUNICATOR_EXIT = "postprocess_layer"
SCATTERS = f"{COMMUNICATOR}._communicate_summable_tensor_pair_fn is _scatter_hidden_states"
ALLOW = "allow_reduce_scatter"
IS_LAST = "is_last_layer"
PIPELINE_HANDOFF = "PPProxyTensors("
FUSION_MARK = "_sglang_needs_allreduce_fusion"
GATHERS_CONTEXTS = "is_enable_moe_cp_allgather"
FUSED_NORM = "forward_with_allreduce_fusion"

STAGE_FACTORIES = ("append_stages", "make_stages")
STAGE_DECLARATIONS: Mapping[str, str] = {"declare_ffn": "ffn", "declare_attn": "attn"}

# what a stage brings along to be summed by, in place of the group that it is declared with
OWN_SUM = "SumImplementation"

ROW_LINEAR = "RowParallelLinear"
EXPERT_LAYERS = ("FusedMoE", "EPMoE")
OWN_FORWARD = "its own forward"
EXPERT_FACTORY = "get_moe_impl_class"
EXPERT_FUNCTIONS = ("fused_moe", "fused_experts")
UTILS_FILE = "sglang/srt/layers/moe/utils.py"
A2A_BACKEND = "MoeA2ABackend"
A2A_NONE = "get_moe_a2a_backend().is_none()"
# data-parallel weights: each rank holds all experts for its own tokens
LOCAL_SIZE = "dwdp_size"
LOCAL_WORK = f"get_parallel().{LOCAL_SIZE} > 1"

# every release's spelling of a group's size
SIZES: Mapping[str, str] = {
    "get_tensor_model_parallel_world_size()": "tp_size",
    "get_parallel().tp_size": "tp_size",
    "get_tp_group().world_size": "tp_size",
    "get_tensor_model_parallel_group().world_size": "tp_size",
    "get_moe_expert_parallel_world_size()": "moe_ep_size",
    "get_parallel().moe_ep_size": "moe_ep_size",
    "get_moe_tensor_parallel_world_size()": "moe_tp_size",
    "get_parallel().moe_tp_size": "moe_tp_size",
    "get_moe_data_parallel_world_size()": "moe_dp_size",
    "get_parallel().moe_dp_size": "moe_dp_size",
    "get_attention_tp_size()": "attn_tp_size",
    "get_attn_tensor_model_parallel_world_size()": "attn_tp_size",
    "get_attn_tp_group().world_size": "attn_tp_size",
    "get_attention_tp_group().world_size": "attn_tp_size",
    "get_parallel().attn_tp_group.world_size": "attn_tp_size",
    "get_parallel().tp_group.world_size": "tp_size",
    "get_moe_ep_group().world_size": "moe_ep_size",
    "get_parallel().moe_ep_group.world_size": "moe_ep_size",
    "get_moe_tp_group().world_size": "moe_tp_size",
    "get_parallel().moe_tp_group.world_size": "moe_tp_size",
    "get_parallel().attn_tp_size": "attn_tp_size",
    "get_attention_dp_size()": "attn_dp_size",
    "get_parallel().attn_dp_size": "attn_dp_size",
}

# words that tell what a class is for
ATTENTION = (
    "RadixAttention",
    "RadixLinearAttention",
    "VisionAttention",
    "get_rope",
    "MambaMixer",
    "attn_backend",
    "rotary_emb",
    "DsaIndexer",
    "cu_seqlens",
)
NORM = ("Norm",)
PRODUCER = (ROW_LINEAR, *EXPERT_LAYERS, EXPERT_FACTORY, *EXPERT_FUNCTIONS, "all_reduce(")
CONSUMER = (COMMUNICATOR_EXIT, FUSION_MARK, *STAGE_FACTORIES, f"{COMMUNICATOR}(")
MODEL = ("make_layers(", "make_pp_layers(", "VocabParallelEmbedding(", "ParallelLMHead(")
