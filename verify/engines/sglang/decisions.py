"""What SGLang's shared decision code must do on every way through it, function by function.

The scan takes these functions by their names; a duty is what it takes for granted. Read from
0.5.10 to 0.5.23; a release without the function owes nothing.
"""

from functools import partial

from verify.engines.sglang.boundary_decisions import BOUNDARY_DUTIES, KERNEL
from verify.engines.sglang.flag_decisions import FLAG_DUTIES, FP4, LOCAL, NVFP4
from verify.engines.sglang.vocabulary import ATTENTION_FILE, COMMUNICATOR_FILE, IS_LAST
from verify.interpreter.library import Assumed, Duty

GROUP_SUMS = ("all_reduce", "reduce_scatter", "reduce_scatterv", "reduce_scatter_tensor")
GATHERS = ("all_gather_into_tensor", "all_gather_single", "all_gather")
ATTENTION_SUMS = (
    "attention_tensor_model_parallel_all_reduce",
    "attention_tensor_model_parallel_quant_all_reduce",
)
FUSED = "forward_with_allreduce_fusion"
NORM = "CommunicateWithAllReduceAndLayerNormFn"
PAIR = "CommunicateSummableTensorPairFn"
MODES = "LayerScatterModes"
EMPTY: Assumed = (r"shape\[0\] (?:!=|>) 0", False)
NO_ROWS: tuple[Assumed, ...] = (EMPTY, (r"shape\[0\] == 0", True))
# attention TP is one rank, as it is where TP is; of its ranks this is the first
_SIZE = r"(?:att(?:n|ention)_)?(?:tp|tensor_model_parallel_world)_size(?:\(\))?"
ALONE: tuple[Assumed, ...] = ((f"{_SIZE} == 1", True), (f"{_SIZE} > 1", False))
SHARED: tuple[Assumed, ...] = ((f"{_SIZE} == 1", False), (f"{_SIZE} > 1", True))
FIRST: tuple[Assumed, ...] = ((r"rank(?:\(\))? == 0", True), (r"rank(?:\(\))? != 0", False))
OTHERS: tuple[Assumed, ...] = ((r"rank(?:\(\))? == 0", False), (r"rank(?:\(\))? != 0", True))
MAX_LEN = r"is_max_len\(\)"
WHOLE_GROUP = r"(?<!attn_)(?<!attention_)(?<!moe_)tp_group"
# the whole group is nothing but attention DP
SAME = r"(?:world_size\(\)|[.]tp_size) == .*dp_size"
SAME_SIZE = r"process_group_sizes.* == "
DENSE = r"enable_moe_dense_fully_dp\(\)"
SPARSE = r"is_layer_sparse"
# each rank holds its slice of the rows before and after
SLICED: Assumed = (r"^hidden_states_(?:in|out)put_mode == ScatterMode\.SCATTERED", True)
CP = r"use_prefill_cp\(|cp_active\("
BEFORE = r"force_layernorm_before_dp_gather"
# without it what attention's ranks share is gathered as a partial sum
NORMED_BEFORE = "a layer that puts its norm before attention data parallelism's gather"

_gathering = partial(
    Duty, file=COMMUNICATOR_FILE, cls=NORM, function="_gather_hidden_states_and_residual"
)
_scattering = partial(Duty, file=COMMUNICATOR_FILE, cls=PAIR, function="_scatter_hidden_states")

ATTENTION_DUTIES = (
    *(
        Duty(file=ATTENTION_FILE, function=name, calls=GROUP_SUMS)
        for name in (
            "attn_tp_all_reduce",
            "attn_tp_reduce_scatter_tensor",
            "dp_reduce_scatter_tensor",
        )
    ),
    # the ranks of one attention-DP group each get a share of its rows: they put them together
    Duty(
        file=ATTENTION_FILE,
        function="dp_reduce_scatter_tensor",
        calls=(*GATHERS, "all_reduce", "reduce_scatterv"),
        unless=((SAME, True),),
        again=True,
    ),
    Duty(
        file=ATTENTION_FILE,
        function="dp_reduce_scatter_tensor",
        calls=GROUP_SUMS,
        over=WHOLE_GROUP,
        optional=True,
    ),
    Duty(
        file=ATTENTION_FILE,
        function="dp_reduce_scatter_tensor",
        calls=GATHERS,
        over="attn_|attention_",
        optional=True,
        again=True,
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
        unless=(EMPTY, *OTHERS),
        only=((("is_partial", True), *FIRST),),
        rule="replicated-addend",
    ),
    Duty(
        file=ATTENTION_FILE,
        function="_dp_gather_via_all_reduce",
        calls=("inplace_all_reduce",),
        over=WHOLE_GROUP,
        optional=True,
    ),
    Duty(
        file=ATTENTION_FILE,
        function="_dp_gather_via_all_gather",
        calls=GATHERS,
        over=rf"{WHOLE_GROUP}|WORLD",
    ),
    Duty(
        file=ATTENTION_FILE,
        function="_dp_gather_via_all_gather",
        calls=("reduce_scatter_tensor", "reduce_scatter"),
        unless=ALONE,
        over="attn_tp_group|attention_tp_group",
    ),
    Duty(
        file=ATTENTION_FILE,
        function="_dp_gather_via_all_gather",
        calls=("fill_",),
        unless=(("is_partial", True), *FIRST, *ALONE),
        needs=NORMED_BEFORE,
    ),
    Duty(
        file=ATTENTION_FILE,
        function="_dp_gather_via_all_gather",
        calls=("fill_",),
        optional=True,
        only=((("is_partial", False),), OTHERS),
    ),
    Duty(
        file=ATTENTION_FILE,
        function="_dp_gather",
        calls=(
            "_dp_gather_via_all_reduce",
            "_dp_gather_via_all_gather",
            "_dp_gather_via_all_gatherv",
        ),
    ),
    Duty(
        file=ATTENTION_FILE,
        function="_dp_gather",
        calls=("_dp_gather_via_all_gather",),
        optional=True,
        only=(((MAX_LEN, True),),),
    ),
    *(
        Duty(
            file=ATTENTION_FILE,
            function=function,
            calls=("_dp_gather",),
            over=f"is_partial={said}",
        )
        for function, said in (("dp_gather_partial", True), ("dp_gather_replicate", False))
    ),
    Duty(
        file=ATTENTION_FILE,
        function="dp_scatter",
        calls=("memcpy_triton", "memcpy", "copy_"),
        unless=NO_ROWS,
    ),
)

COMMUNICATOR_DUTIES = (
    _gathering(
        calls=(
            *ATTENTION_SUMS,
            # the same ranks where there is neither attention DP nor context parallelism
            "tensor_model_parallel_all_reduce",
            FUSED,
            "dp_gather_partial",
            "_tp_all_reduce_with_scattered_residual",
        ),
        unless=(
            EMPTY,
            *ALONE,
        ),
    ),
    # to 0.5.9 the conditions stand where it is called
    _gathering(
        calls=(FUSED,),
        optional=True,
        only=((("apply_|flashinfer", True),),),
    ),
    _gathering(
        calls=("layernorm", FUSED, "_tp_all_reduce_with_scattered_residual"),
        unless=NO_ROWS,
    ),
    # attention's output is summed by the gather: one rank of a group adds the residual to it
    _gathering(
        calls=("hidden_states += residual",),
        unless=(
            ("attn_dp_size != 1", False),
            ("input_scattered", True),
            (BEFORE, True),
            *ALONE,
            *OTHERS,
        ),
        only=(FIRST,),
        rule="replicated-addend",
    ),
    _gathering(
        calls=("dp_gather_partial", "dp_gather_replicate"),
        unless=(("attn_dp_size != 1", False), ("input_scattered", True)),
        only=((("attn_dp_size != 1", True),),),
    ),
    _gathering(
        calls=("dp_gather_replicate",),
        optional=True,
        only=((*ALONE, (BEFORE, True)),),
    ),
    _gathering(
        calls=("dp_scatter",),
        unless=(
            ("attn_dp_size != 1", False),
            ("input_scattered", True),
            (BEFORE, True),
            *ALONE,
        ),
        only=(SHARED,),
    ),
    # slices of the residual are put together before they are added
    _gathering(
        calls=("attn_tp_all_gather_into_tensor",),
        unless=(("input_scattered", True), ("residual_input_mode == .*SCATTERED", False), *ALONE),
        # no layer has a residual of all ranks' rows
        only=(((r"residual_input_mode == ScatterMode\.(?:SCATTERED|FULL|MOE_FULL)$", True),),),
    ),
    Duty(
        file=COMMUNICATOR_FILE, cls=NORM, function="_simple", calls=("layernorm",), unless=NO_ROWS
    ),
    *(
        Duty(
            file=COMMUNICATOR_FILE,
            cls=NORM,
            function="_scatter_hidden_states_and_residual",
            calls=(name,),
            unless=unless,
        )
        for name, unless in (("attn_tp_reduce_scatter_tensor", ()), ("layernorm", NO_ROWS))
    ),
    Duty(
        file=COMMUNICATOR_FILE,
        cls=NORM,
        function="_tp_attn_all_reduce_and_layernorm",
        calls=("all_reduce", "attn_tp_all_reduce", *ATTENTION_SUMS),
    ),
    # which of them serves a layer; the residual's rows are as many before and after wherever the
    # hidden states' are (`_compute_middle_residual_mode`, `_compute_layer_output_mode`)
    Duty(
        file=COMMUNICATOR_FILE,
        cls=NORM,
        function="get_fn",
        calls=("return _simple",),
        optional=True,
        only=(
            (*ALONE, SLICED),
            (("size.*hidden_states_input_mode, hidden_states_output_mode", True), SLICED),
        ),
    ),
    Duty(
        file=COMMUNICATOR_FILE,
        cls=PAIR,
        function="get_fn",
        calls=("return _trivial",),
        optional=True,
        only=((("is_same_group_size.*hidden_states_input_mode, output_mode", True),),),
    ),
    Duty(
        file=COMMUNICATOR_FILE,
        cls="CommunicateContext",
        function="is_same_group_size",
        yes=(((SAME_SIZE, True),),),
        no=(((SAME_SIZE, False),),),
        always=True,
    ),
    _scattering(
        calls=("reduce_scatterv", "dp_reduce_scatter_tensor", "dp_scatter"),
    ),
    # the layer leaves its sum where it is told to: not elsewhere
    _scattering(
        calls=("dp_reduce_scatter_tensor",),
        unless=(
            ("allow_reduce_scatter", False),
            (MAX_LEN, False),
            (r"should_use_dp_reduce_scatterv\(\)", True),
        ),
        only=((("allow_reduce_scatter", True),), ((MAX_LEN, True),)),
        rule="reduced-twice",
    ),
    _scattering(
        calls=("reduce_scatterv",),
        optional=True,
        only=(((r"should_use_dp_reduce_scatterv\(\)", True),),),
        rule="reduced-twice",
    ),
    Duty(
        file=COMMUNICATOR_FILE,
        cls="LayerCommunicator",
        function="should_use_reduce_scatter",
        yes=(
            (("allow_reduce_scatter", True),),
            (
                ("_scatter_hidden_states", True),
                (CP, True),
                ("input_scattered", True),
            ),
            (
                (MAX_LEN, True),
                (r"should_use_dp_reduce_scatterv\(\)", True),
                (CP, True),
                ("input_scattered", True),
            ),
        ),
        no=(
            (
                ("allow_reduce_scatter", False),
                ("_scatter_hidden_states", False),
                (MAX_LEN, False),
            ),
        ),
        knows="_scatter_hidden_states",
    ),
    Duty(
        file=COMMUNICATOR_FILE,
        cls="LayerCommunicator",
        function="should_fuse_mlp_allreduce_with_next_layer",
        yes=(((IS_LAST, False),),),
        rule="lost-past-end",
    ),
    # without the kernel nobody sums; under attention DP the next layer has other rows
    Duty(
        file=COMMUNICATOR_FILE,
        function="apply_flashinfer_allreduce_fusion",
        yes=((("_is_flashinfer_available", True),), ((r"is_dp_attention_enabled\(\)", False),)),
        needs=KERNEL,
    ),
    # whose rows an MLP works on
    Duty(
        file=COMMUNICATOR_FILE,
        cls=MODES,
        function="_compute_mlp_mode",
        calls=("return SCATTERED",),
        optional=True,
        only=(
            ((SPARSE, True), (DENSE, True)),
            ((SPARSE, False), (LOCAL, False), (FP4, True), ("dwdp", True)),
        ),
        rule="sums-local-rows",
    ),
    Duty(
        file=COMMUNICATOR_FILE,
        cls=MODES,
        function="_compute_mlp_mode",
        calls=("return FULL", "return MOE_FULL"),
        optional=True,
        only=(((SPARSE, True), (DENSE, False)),),
        knows=DENSE,
        rule="sums-local-rows",
    ),
    Duty(
        file=COMMUNICATOR_FILE,
        cls=MODES,
        function="_compute_mlp_mode",
        calls=("return MOE_FULL",),
        optional=True,
        only=((("moe_cp_allgather|prefill_cp_shards_tokens", True),),),
        rule="sums-local-rows",
    ),
)
# where a condition of shared code has a truth: what a launch, or a layer, must be like
NEEDS = (
    (
        r"_mode == (?:ScatterMode\.)?\s*SCATTERED",
        True,
        "rows cut over attention's ranks: an all-to-all backend, or dense MLPs that are whole",
    ),
    (BEFORE, True, NORMED_BEFORE),
    ("allow_reduce_scatter", False, "a layer that does not allow a reduce-scatter"),
    ("reduces_attention_tp", False, "attention whose output is whole under attention TP"),
    ("input_scattered", True, "--enable-attn-tp-input-scattered"),
    (r"prefill_cp\(|cp_active\(", True, "prefill context parallelism"),
    (r"a2a_backend\(\)\.is_none\(\)", False, "an all-to-all backend"),
    (r"\.is_(?:flashinfer|pplx|flashinfer_megamoe)\(\)", True, "an all-to-all backend"),
    (r"fp4_allgather\(\)", True, "the FP4 dispatcher"),
    (r"dwdp_size > 1|enable_dwdp\(\)", True, "data-parallel weights"),
    (r"all_?reduce_fusion\(|fuse_mlp_allreduce", True, KERNEL),
    (NVFP4, True, "a checkpoint quantised to NVFP4"),
    (r"^_is_(?:npu|hip)|_use_aiter", True, "another platform's kernels"),
    ("quant_communications|quantize_communications", True, "--enable-quant-communications"),
)
DUTIES = (*ATTENTION_DUTIES, *COMMUNICATOR_DUTIES, *FLAG_DUTIES, *BOUNDARY_DUTIES)
