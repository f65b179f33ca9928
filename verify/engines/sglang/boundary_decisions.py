"""What SGLang's layer boundary and the experts' sums must do on every way, function by function.

Read from 0.5.20 to 0.5.23; `decisions.py` says the same of what came before.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from verify.engines.sglang.vocabulary import UTILS_FILE
from verify.interpreter.library import Assumed, Duty

BOUNDARY = "sglang/srt/layers/layer_boundary"
OPS, EXIT, PREPARE = (f"{BOUNDARY}/{name}.py" for name in ("ops", "exit", "prepare"))
EXPERTS, EXPERT_TP, WHOLE = (
    "moe_expert_parallel_all_reduce",
    "moe_tensor_model_parallel_all_reduce",
    "tensor_model_parallel_all_reduce",
)
QUANTISED = "tensor_model_parallel_quant_all_reduce"
ATTENTION_SUMS = (f"attention_{WHOLE}", f"attention_{QUANTISED}")
EMPTY: tuple[Assumed, ...] = ((r"shape\[0\] != 0", False), (r"shape\[0\] == 0", True))
ATTN, TP, MOE = (rf"group is SumGroup\.{name}\b" for name in ("ATTN_TP", "TP", "MOE_OUTPUT"))
_TP_SIZE = r"(?<!attn_)(?<!moe_)(?:tp_size|tensor_model_parallel_world_size\(\))"
MERGED = r"can_merge_(?:post_experts_)?all_reduce\(\)"
COMPLETE = (
    ("sum_post_experts_output", r"is_complete\("),
    ("post_experts_all_reduce", r"should_skip_post_experts_all_reduce\("),
)
COMBINES = "an all-to-all backend, or an FP4 dispatcher, whose combine sums"
KERNEL = "a GPU with the fused all-reduce's kernels"


def _owed(argument: str, *sizes: str) -> Iterator[Duty]:
    """Which sum of the experts' output is asked for: one that is owed and not yet made."""
    for function, done in COMPLETE:
        duty = Duty(
            file=UTILS_FILE, function=function, calls=("_post_experts_sum",), argument=argument
        )
        yield replace(duty, yes=(((done, False),),), needs=COMBINES)
        yield replace(duty, no=(((done, True), *((f"{size} > 1", False) for size in sizes)),))


def _handed_on(file: str, function: str, *calls: str, over: str = "") -> Duty:
    return Duty(file=file, function=function, calls=calls, over=over)


_post_experts_sum = partial(Duty, file=UTILS_FILE, function="_post_experts_sum")
_sum_output = partial(Duty, file=OPS, function="sum_output")
_exit_policy = partial(Duty, file=EXIT, cls="ExitPolicy")
_completing = partial(_exit_policy, function="_complete_now")

BOUNDARY_DUTIES = (
    # the experts' sum
    *(
        _post_experts_sum(
            calls=(name,),
            optional=True,
            only=(((asked, True),),),
        )
        for name, asked in ((EXPERTS, "reduce_ep"), (EXPERT_TP, "reduce_tp"))
    ),
    *(
        _post_experts_sum(
            # over the whole group are the same ranks, without copies of the experts
            calls=(name, WHOLE),
            again=True,
            unless=((asked, False), (MERGED, True)),
        )
        for name, asked in ((EXPERTS, "reduce_ep"), (EXPERT_TP, "reduce_tp"))
    ),
    _post_experts_sum(
        calls=(WHOLE,),
        optional=True,
        only=((("reduce_ep", True), ("reduce_tp", True)),),
    ),
    _post_experts_sum(
        calls=(WHOLE,),
        unless=(("reduce_ep", False), ("reduce_tp", False), (MERGED, False)),
    ),
    Duty(file=UTILS_FILE, function="sum_post_experts_output", calls=("_post_experts_sum",)),
    *_owed("reduce_ep", r"(?:moe_)?ep_size", _TP_SIZE),
    *_owed("reduce_tp", "moe_tp_size", _TP_SIZE),
    Duty(
        file=UTILS_FILE,
        function="reduce_moe_output",
        calls=(WHOLE,),
        unless=((f"{_TP_SIZE} > 1", False), (r"should_skip_post_experts_all_reduce\(", True)),
        only=(((r"should_skip_post_experts_all_reduce\(", False),),),
    ),
    *(
        Duty(
            file=UTILS_FILE,
            function="post_experts_reduction_group",
            calls=(f"return {name}",),
            optional=True,
            only=only,
            needs=KERNEL,
        )
        for name, only in (
            ("moe_ep_group", (((MERGED, False),), (("ep_size > 1", True),))),
            ("moe_tp_group", (((MERGED, False),), (("ep_size > 1", False),))),
        )
    ),
    # which ranks a group is
    *(
        Duty(
            file=f"{BOUNDARY}/layout.py",
            function="_sum_group",
            calls=(f"return {name}",),
            optional=True,
            only=(tuple((rf"is SumGroup\.{group}\b", True) for group in groups),),
        )
        # the experts' output is summed over the same ranks, without copies of the experts
        for name, groups in (("attn_tp_group", ("ATTN_TP",)), ("tp_group", ("TP", "MOE_OUTPUT")))
    ),
    *(
        Duty(
            file=f"{BOUNDARY}/layout.py",
            function="_sum_group",
            calls=calls,
            unless=tuple((rf"is SumGroup\.{name}\b", truth) for name, truth in unless),
        )
        for calls, unless in (
            (("return attn_tp_group",), (("ATTN_TP", False),)),
            (("return tp_group",), (("TP", False), ("ATTN_TP", True), ("ATTN_CP", True))),
        )
    ),
    # the sum that an output owes
    Duty(file=OPS, function="attn_tp_all_reduce", calls=ATTENTION_SUMS),
    _sum_output(
        calls=("attn_tp_all_reduce", *ATTENTION_SUMS),
        unless=((ATTN, False), (TP, True), (MOE, True), ("attn_tp_size == 1", True)),
        only=(((ATTN, True),),),
    ),
    _sum_output(
        calls=(WHOLE, QUANTISED),
        unless=((TP, False), (ATTN, True), (MOE, True), (f"{_TP_SIZE} == 1", True)),
        only=(((TP, True), (MOE, True)),),
    ),
    _sum_output(
        calls=("sum_post_experts_output", WHOLE, QUANTISED),
        unless=((MOE, False), (ATTN, True), (TP, True), (f"{_TP_SIZE} == 1", True)),
    ),
    _sum_output(
        calls=("sum_post_experts_output",),
        optional=True,
        only=(((MOE, True), (TP, False)),),
    ),
    # rows that are moved
    _handed_on(OPS, "dp_gather", "dp_gather_replicate"),
    _handed_on(OPS, "dp_gather_sum", "dp_gather_partial"),
    _handed_on(OPS, "dp_reduce_scatter", "dp_reduce_scatter_tensor"),
    _handed_on(OPS, "dp_reduce_scatterv", "reduce_scatterv", over=r"(?<!attn_)(?<!moe_)tp_group"),
    _handed_on(OPS, "_dp_scatter_step", "dp_scatter"),
    _handed_on(OPS, "all_reduce_to_dp_local", "all_reduce"),
    _handed_on(OPS, "to_dp_local", "step"),
    _handed_on(OPS, "attn_tp_reduce_scatter", "attn_tp_reduce_scatter_tensor"),
    # an unfinished sum that is handed on
    Duty(
        file=f"{BOUNDARY}/output.py",
        cls="UnreducedOutput",
        function="complete",
        calls=("complete_sum", "reduce_to_dp_local", "all_reduce"),
    ),
    Duty(
        file=f"{BOUNDARY}/output.py",
        function="complete_owed",
        calls=("complete",),
        unless=(("isinstance", False),),
        only=((("isinstance", True),),),
    ),
    # a stage's end
    _completing(
        calls=("sum_output", "run"),
        unless=(("owes_sum", False),),
        only=((("owes_sum", True),),),
    ),
    _completing(
        calls=("to_dp_local",),
        unless=(("returns_over_dp", False),),
        only=((("returns_over_dp", True),),),
    ),
    _completing(
        calls=("to_dp_local", "output_move"),
    ),
    _exit_policy(
        function="_decide",
        calls=("partial",),
        optional=True,
        argument="owes_sum",
        yes=((("group is not None", True),), (("sum_in_reduce_scatter", False),)),
        no=((("group is not None", False), ("sum_in_reduce_scatter", True)),),
    ),
    _exit_policy(
        function="_sum_in_reduce_scatter",
        yes=((("dp_step is not None", True), ("sum_in_reduce_scatter", True)),),
        no=((("dp_step is not None", False),), (("sum_in_reduce_scatter", False),)),
    ),
    _exit_policy(
        function="_dp_reduce_scatter_step",
        calls=("_select_dp_reduce_scatter",),
        unless=(("returns_over_dp", False),),
        only=((("returns_over_dp", True),),),
    ),
    _exit_policy(
        function="_defers_sum",
        yes=(
            (("may_defer_sum", True),),
            (("sum_in_reduce_scatter", False),),
            (("dp_step is None", True),),
        ),
    ),
    Duty(
        file=EXIT,
        function="_select_dp_reduce_scatter",
        calls=("return dp_reduce_scatter",),
        unless=(
            ("may_reduce_scatter", False),
            (r"is_max_len\(\)", False),
            ("can_use_dp_reduce_scatter", False),
            (r"^reduce_scatterv$", True),
        ),
        only=(
            (("may_reduce_scatter", True),),
            ((r"is_max_len\(\)", True),),
            (("can_use_dp_reduce_scatter", True),),
        ),
    ),
    Duty(
        file=EXIT,
        function="_select_dp_reduce_scatter",
        calls=("return dp_reduce_scatterv",),
        optional=True,
        only=(((r"^reduce_scatterv$", True),),),
    ),
    _exit_policy(
        function="_record_output",
        calls=("write",),
        unless=(("applied_at_exit", False),),
        only=((("applied_at_exit", True),),),
    ),
    # a stage's beginning
    Duty(
        file=PREPARE,
        function="_reduce_update_read",
        calls=("attn_tp_all_reduce", *ATTENTION_SUMS, WHOLE, "all_reduce"),
        unless=(("result is not None", True), ("group is not None", False)),
    ),
    Duty(
        file=PREPARE,
        function="_reduce_update_read",
        calls=("attn_tp_all_reduce", *ATTENTION_SUMS),
        optional=True,
        only=(((ATTN, True), (TP, True), ("group is not None", True)),),
    ),
    Duty(
        file=PREPARE,
        function="_reduce_update_read_dp_gather",
        calls=("attn_tp_all_reduce", *ATTENTION_SUMS, "all_reduce"),
        unless=(("reduces_attention_tp", False), *EMPTY),
        only=((("reduces_attention_tp", True),),),
    ),
    _handed_on(PREPARE, "_reduce_update_read_dp_gather", "dp_gather"),
    _handed_on(PREPARE, "_reduce_update_read_dp_gather", "update_and_read"),
    _handed_on(PREPARE, "_dp_gather_sum_read", "dp_gather_sum"),
    _handed_on(PREPARE, "_dp_gather_sum_read", "dp_scatter"),
    Duty(
        file=PREPARE,
        function="_dp_gather_sum_read",
        calls=("hidden_states += residual",),
        unless=(("rank == 0", False),),
        only=((("rank == 0", True),),),
        rule="replicated-addend",
    ),
    Duty(
        file=PREPARE,
        function="_attn_tp_reduce_scatter_update_read",
        calls=("attn_tp_reduce_scatter",),
        unless=(("result is not None", True),),
    ),
)
