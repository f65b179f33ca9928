"""Which options start a server in each of the cases that a check tells apart.

Which models and backends take them is read from the source.
"""

import re
from collections.abc import Mapping

from verify.engines.reading import Asked, Behind, Launches, Options
from verify.engines.sglang.rows import ON_RANK_ROWS
from verify.engines.sglang.vocabulary import (
    FACTORIES_FILE,
    LAYERS,
    LOCAL_SIZE,
    STAGE_DECLARATIONS,
)

PLAIN: Options = {"tp_size": 4}
ATTENTION_DP: Options = {"tp_size": 4, "dp_size": 4, "enable_dp_attention": True}
RUNNERS = ("flashinfer_cutlass", "deep_gemm")
FP4: Options = {
    **ATTENTION_DP,
    "ep_size": 4,
    "quantization": "modelopt_fp4",
    "moe_runner_backend": "flashinfer_cutlass",
}
CONTEXT: Options = {
    **PLAIN,
    "attn_cp_size": 2,
    "enable_prefill_cp": True,
    "cp_strategy": "zigzag",
}
COPIES: Options = {**PLAIN, "attn_cp_size": 2, "moe_dp_size": 2}
DENSE: Options = {**PLAIN, "moe_dense_tp_size": 1}
# without a cause here: what a launch needs was not worked out
BY_CAUSE: Mapping[str, tuple[Options, ...]] = {
    "dispatched": (FP4,),
    "local-work": ({**PLAIN, LOCAL_SIZE: 4},),
    "dense": (DENSE, {**ATTENTION_DP, "moe_dense_tp_size": 1}),
    "resummed": (DENSE, {**ATTENTION_DP, "moe_dense_tp_size": 1}),
    "copies": (COPIES,),
    "own-copies": (COPIES,),
    "split": ({**PLAIN, "ep_size": 2},),
    "fused": ({**PLAIN, "ep_size": 4},),
    "context": (CONTEXT,),
}
# releases name it one way or the other
FUSES: tuple[Options, ...] = (
    {**PLAIN, "enable_flashinfer_allreduce_fusion": True},
    {**PLAIN, "flashinfer_allreduce_fusion_backend": "auto"},
)
# by the flags that hold in a row, the first that does
BY_FLAG: Mapping[str, tuple[Options, ...]] = {
    "FI": (FP4,),
    "DP": ({**ATTENTION_DP, "ep_size": 4},),
    # a sum over the experts' group needs one
    "RS": (ATTENTION_DP, {**ATTENTION_DP, "ep_size": 2}),
    "AF": FUSES,
}
STAGES: tuple[Options, ...] = tuple({**options, "pp_size": 2} for options in FUSES)
NEEDS: Mapping[str, tuple[str, ...]] = {
    "FI": ("a checkpoint quantised to NVFP4", "a CUDA GPU with FP4 kernels"),
    "AF": ("a CUDA GPU with the fused all-reduce's kernels",),
}

BEHIND = Behind(
    registered=re.compile(r"register_pre_permute\(\"(?P<takes>\w+)\", \"(?P<runner>\w+)\"\)"),
    fused=re.compile(r"@register_fused_func\(\"(?P<takes>\w+)\", \"(?P<runner>\w+)\"\)"),
    output=re.compile(r"\b\w+DispatchOutput\b"),
    format=re.compile(r"return DispatchOutputFormat\.(\w+)"),
    unquantised=f"{LAYERS}quantization/unquant.py",
    names="MoeRunnerBackend.",
    otherwise=re.compile(
        r"else:\n[ \t]+backend = MoeRunnerBackend\.(\w+)\n[ \t]+self\.runner = MoeRunner\("
    ),
    file=f"{LAYERS}moe/moe_runner/base.py",
    ends=re.compile(r"\n[ \t]+(?=assert \(?\s*pre_permute_func is not None)"),
    option="moe_runner_backend",
    asserts=re.compile(
        r"^[ \t]+assert self\.config\.(?P<name>\w+)"
        r"(?: (?:in|==) (?P<among>\([^\n]*\)|\"\w+\"))?$",
        re.MULTILINE,
    ),
)

LAUNCHES = Launches(
    plain=PLAIN,
    attention_dp=ATTENTION_DP,
    by_cause=BY_CAUSE,
    by_flag=BY_FLAG,
    stages=STAGES,
    runners=RUNNERS,
    needs=NEEDS,
    moved=frozenset({"dp_size", "enable_dp_attention"}),
    local_size=LOCAL_SIZE,
    stages_declared=STAGE_DECLARATIONS,
    stacks=("make_layers", "make_layers_non_pp"),
    context="get_parallel",
    settings={
        "get_moe_a2a_backend": "moe_a2a_backend",
        "get_moe_runner_backend": "moe_runner_backend",
    },
    own_rows=Asked(file=FACTORIES_FILE, name=ON_RANK_ROWS),
    gathers="gather_residual_attn_tp",
    behind=BEHIND,
)
