"""What SGLang's predicates must ask before they answer yes, or no.

A block leaves its sum out where one of them says so: it takes the answer for what the name says.
Read from 0.5.10 to 0.5.23; `decisions.py` says the same of what moves rows and sums.
"""

from functools import partial

from verify.engines.sglang.vocabulary import UTILS_FILE
from verify.interpreter.library import Duty

FP4 = r"should_use_flashinfer_cutlass_moe_fp4_allgather\(\)"
LOCAL = r"a2a_backend\(\)\.is_none\(\)"
BY_TOKENS = r"should_use_dp_reduce_scatterv\(\)"
FETCHED = "(?:dwdp_size > 1|enable_dwdp)"
COMPLETE = r"post_experts_output_is_complete\("
LATER = r"should_skip_mlp_all_reduce\(\)"
FORBIDDEN = "(?:disable_fp4_allgather|DISABLE_FLASHINFER_CUTLASS_MOE_FP4_ALLGATHER)"
NVFP4 = "(?:quantization|MOE_QUANTIZATION) == .modelopt_fp4"
FUSES, SCATTERS = r"fuse_mlp_allreduce\b", r"mlp_reduce_scatter\b"
# backends whose combine sums
COMBINES = (r"\.is_flashinfer\(\)", r"\.is_pplx\(\)", r"\.is_flashinfer_megamoe\(\)")
# where one function says both what is complete and what is left to a later step
BOTH = rf"(?s)\A(?!.*def {COMPLETE})"

# a block that is told no makes its sum, beside a later step that makes it too
_predicate = partial(Duty, file=UTILS_FILE, denied="reduced-twice")

FLAG_DUTIES = (
    _predicate(
        function="should_skip_mlp_all_reduce",
        yes=(((FUSES, True), (SCATTERS, True)),),
        no=(((FUSES, False),), ((SCATTERS, False),)),
    ),
    _predicate(
        function="post_experts_output_is_complete",
        yes=(((FETCHED, True), (FP4, True), *((each, True) for each in COMBINES)),),
        no=(
            ((FETCHED, False),),
            ((FP4, False), ("is_tp_path", False)),
            *(((each, False),) for each in COMBINES),
        ),
    ),
    _predicate(
        function="should_skip_post_experts_all_reduce",
        yes=(((LATER, True), (COMPLETE, True)),),
        no=(((LATER, False),), ((COMPLETE, False),)),
        knows=f"def {COMPLETE}",
    ),
    _predicate(
        function="should_skip_post_experts_all_reduce",
        yes=(
            (
                (LATER, True),
                (r"fusion\b", True),
                (r"use_reduce_scatter\b", True),
                (FETCHED, True),
                (BY_TOKENS, True),
                (FP4, True),
                *((each, True) for each in COMBINES),
            ),
        ),
        # what is scattered by tokens its layer leaves to a later step anyway
        no=(
            ((LATER, False),),
            ((FETCHED, False),),
            ((FP4, False), ("is_tp_path", False)),
            *(((each, False),) for each in COMBINES),
        ),
        knows=BOTH,
    ),
    # the combine scatters the rows of each attention-DP rank over the whole group
    _predicate(
        function="should_use_dp_reduce_scatterv",
        yes=(
            ((FP4, False),),
            ((LOCAL, True),),
            ((r"is_dp_attention_enabled\(\)", True), (r"dp_size(?:\(\))? > 1", True)),
            ((r"(?<!moe_)(?:tp_size|parallel_world_size).*== .*dp_size", True),),
        ),
    ),
    # the dispatcher gathers rows in FP4 and scatters their sum
    _predicate(
        function="should_use_flashinfer_cutlass_moe_fp4_allgather",
        yes=(
            ((FORBIDDEN, False),),
            ((LOCAL, True),),
            ((r"is_flashinfer_cutlass\(\)", True),),
            ((r"is_dp_attention_enabled\(\)", True),),
            ((NVFP4, True),),
        ),
    ),
    _predicate(
        function="can_merge_post_experts_all_reduce",
        yes=(((r"moe_dp_size == 1", True),),),
        needs="copies of the experts",
        always=True,
    ),
)
