"""What SGLang's shared decision code must do on every way through it, function by function.

The scan takes these functions by their names; a duty is what it takes for granted. Read from
0.5.10 to 0.5.23; a release without the function owes nothing.
"""

from verify.engines.sglang.vocabulary import COMMUNICATOR_FILE, IS_LAST, UTILS_FILE
from verify.interpreter.library import Duty

ATTENTION_FILE = "sglang/srt/layers/dp_attention.py"
BOUNDARY = "sglang/srt/layers/layer_boundary"
GROUP_SUMS = ("all_reduce", "reduce_scatter", "reduce_scatterv", "reduce_scatter_tensor")
ATTENTION_SUMS = (
    "attention_tensor_model_parallel_all_reduce",
    "attention_tensor_model_parallel_quant_all_reduce",
)
FUSED = "forward_with_allreduce_fusion"


DUTIES = (
    *(
        Duty(file=ATTENTION_FILE, function=name, calls=GROUP_SUMS)
        for name in (
            "attn_tp_all_reduce",
            "attn_tp_reduce_scatter_tensor",
            "dp_reduce_scatter_tensor",
        )
    ),
    Duty(
        file=ATTENTION_FILE,
        function="_dp_gather_via_all_reduce",
        calls=("all_reduce", "inplace_all_reduce", "tensor_model_parallel_all_reduce"),
    ),
    # of what every rank of a group holds, one rank alone puts its copy there
    Duty(
        file=ATTENTION_FILE,
        function="_dp_gather_via_all_reduce",
        calls=("memcpy_triton", "memcpy", "copy_"),
        unless=(("shape[0] > 0", False), ("_rank() == 0", False), ("_rank == 0", False)),
    ),
    *(
        Duty(
            file=ATTENTION_FILE,
            function="_dp_gather_via_all_reduce",
            calls=(name,),
            optional=True,
            asks=(name, r"is_partial|rank(?:\(\))? == 0"),
        )
        for name in ("memcpy_triton", "memcpy", "copy_")
    ),
    Duty(
        file=COMMUNICATOR_FILE,
        cls="CommunicateWithAllReduceAndLayerNormFn",
        function="_gather_hidden_states_and_residual",
        calls=(
            *ATTENTION_SUMS,
            # the same ranks where there is neither attention DP nor context parallelism
            "tensor_model_parallel_all_reduce",
            FUSED,
            "dp_gather_partial",
            "_tp_all_reduce_with_scattered_residual",
        ),
        unless=(
            ("hidden_states.shape[0] != 0", False),
            ("attn_tp_size > 1", False),
            ("attn_tp_size == 1", True),
        ),
        # to 0.5.9 the conditions stand where it is called
        asks=(FUSED, r"apply_|flashinfer"),
    ),
    Duty(
        file=COMMUNICATOR_FILE,
        cls="CommunicateSummableTensorPairFn",
        function="_scatter_hidden_states",
        calls=("reduce_scatterv", "dp_reduce_scatter_tensor", "dp_scatter"),
    ),
    Duty(
        file=COMMUNICATOR_FILE,
        cls="LayerCommunicator",
        function="should_fuse_mlp_allreduce_with_next_layer",
        implies=(IS_LAST, False),
        rule="lost-past-end",
    ),
    # without the kernel nobody sums; under attention DP the next layer has other rows
    *(
        Duty(file=COMMUNICATOR_FILE, function="apply_flashinfer_allreduce_fusion", implies=implied)
        for implied in (("_is_flashinfer_available", True), ("is_dp_attention_enabled()", False))
    ),
    Duty(
        file=f"{BOUNDARY}/exit.py",
        cls="ExitPolicy",
        function="_complete_now",
        calls=("sum_output", "run"),
        where=(("owes_sum", True),),
    ),
    Duty(
        file=f"{BOUNDARY}/prepare.py",
        function="_reduce_update_read",
        calls=("attn_tp_all_reduce", "tensor_model_parallel_all_reduce", "all_reduce"),
        where=(("result is not None", False),),
        unless=(("group is not None", False),),
    ),
    *(
        Duty(file=UTILS_FILE, function="_post_experts_sum", calls=(name,), optional=True)
        for name in ("moe_expert_parallel_all_reduce", "moe_tensor_model_parallel_all_reduce")
    ),
)
