"""A source's definitions of DP and FI against the helper's, on every configuration."""

import pytest

from verify.checks.pull_request.predicates import Definition, compare_definitions
from verify.engines.sglang.definitions import Definitions

DP = "should_use_dp_reduce_scatterv"
FI = "should_use_flashinfer_cutlass_moe_fp4_allgather"
GATE = "get_moe_a2a_backend().is_none() and is_dp_attention_enabled()"
SAME_SIZES = "attn_dp_size == moe_ep_size"
CUTLASS = "get_moe_runner_backend().is_flashinfer_cutlass()"
RIGHT_DP = f"not FI and {GATE} and attn_dp_size > 1 and {SAME_SIZES}"
GLOBALS = (
    f"not DISABLE_FLASHINFER_CUTLASS_MOE_FP4_ALLGATHER and {GATE} and {CUTLASS} "
    f"and MOE_QUANTIZATION == 'modelopt_fp4' and {SAME_SIZES}"
)
GET_FLAGS = (
    f"not get_flags().moe.disable_fp4_allgather and {GATE} and {CUTLASS} "
    f"and get_flags().moe.quantization == 'modelopt_fp4' and {SAME_SIZES}"
)
SAME = "the same in 296 configurations"
TWO = "tp_size=2 ep_size=2 attn_dp_size=2 enable_dp_attention=True"


def compared(dp: str, fi: str) -> dict[str, Definition]:
    return {d.flag: d for d in compare_definitions(Definitions(texts={DP: dp, FI: fi}))}


@pytest.mark.parametrize("fi", [GLOBALS, GET_FLAGS])
def test_every_spelling_of_the_same_rule(fi: str) -> None:
    assert {d.flag: d.verdict for d in compared(RIGHT_DP, fi).values()} == {"DP": SAME, "FI": SAME}


DIFFERENT = {
    "a smaller group is not enough": (
        f"{RIGHT_DP} and attn_dp_size == tp_size",
        "tp_size=4 ep_size=2 attn_dp_size=2 enable_dp_attention=True",
    ),
    "any group": (f"not FI and {GATE}", "tp_size=2 attn_dp_size=2 enable_dp_attention=True"),
    "never": ("not is_dp_attention_enabled() and FI", TWO),
    "FI does not exclude it": (
        f"(FI or not FI) and {GATE} and {SAME_SIZES}",
        f"{TWO} moe_runner_backend=flashinfer_cutlass quantization=modelopt_fp4",
    ),
}


@pytest.mark.parametrize(("text", "smallest"), DIFFERENT.values(), ids=DIFFERENT)
def test_another_rule_differs_in_the_smallest_configuration(text: str, smallest: str) -> None:
    assert compared(text, GLOBALS)["DP"].verdict == f"differs with {smallest}: it is {text} here"


@pytest.mark.parametrize(
    ("part", "instead"),
    [
        ("not DISABLE_FLASHINFER_CUTLASS_MOE_FP4_ALLGATHER and ", ""),
        (f"{CUTLASS} and ", ""),
        (" and MOE_QUANTIZATION == 'modelopt_fp4'", ""),
        (f" and {SAME_SIZES}", ""),
        ("not DISABLE", "DISABLE"),
    ],
)
def test_every_part_of_fi_is_compared(part: str, instead: str) -> None:
    assert part in GLOBALS
    assert compared(RIGHT_DP, GLOBALS.replace(part, instead))["FI"].differs is not None


def test_a_flag_that_is_not_there() -> None:
    (dp, fi) = compare_definitions(Definitions(texts={FI: GLOBALS}))
    assert (dp.verdict, fi.verdict) == ("not in this source", SAME)


def test_what_no_configuration_answers_is_named() -> None:
    verdict = compared(f"is_monday() and {RIGHT_DP}", GLOBALS)["DP"].verdict
    assert verdict == "not compared: is_monday() is not part of a configuration here"


def test_flags_that_are_defined_by_each_other_are_not_compared() -> None:
    verdicts = {flag: d.verdict for flag, d in compared("not FI", "not DP").items()}
    assert verdicts == {
        "DP": "not compared: DP is not part of a configuration here",
        "FI": "not compared: FI is not part of a configuration here",
    }


@pytest.mark.parametrize("always", ["True", "False"])
def test_a_flag_that_never_changes(always: str) -> None:
    assert compared(RIGHT_DP, GLOBALS.replace(CUTLASS, always))["FI"].differs is not None
