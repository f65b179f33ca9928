"""Shared experts among the routed ones, of which every expert-parallel rank has one (#26845)."""

import re
from collections.abc import Callable
from typing import Any

import pytest

Judge = Callable[..., Any]

EXPERTS = """
class FusedMoE:
    def __init__(self, num_experts, more=0):
        self.routed = (num_experts - more) // self.moe_ep_size
        self.held = self.routed + more
"""
DIVIDES = "w = w / get_moe_expert_parallel_world_size()"
FUSED = (
    (
        "from elsewhere import kernel\n",
        "from elsewhere import kernel\n"
        "from sglang.srt.layers.moe.held import FusedMoE\n"
        "_on_rocm = is_hip()\n"
        "_use_aiter = get_bool_env_var('FUSES_SHARED') and _on_rocm\n",
    ),
    (
        "        self.experts = FusedMoE(num_experts=config.n)\n",
        "        self.others = 1 if _use_aiter else 0\n"
        "        self.experts = FusedMoE(num_experts=config.n + self.others, more=self.others)\n",
    ),
    (
        "        out = self.experts(x, ids)\n",
        "        if self.others:\n"
        "            w = self.router(x)[0].sigmoid()\n"
        "            WEIGHS\n"
        "            ids, weights = kernel(ids, weights, w, self.others, N=8)\n"
        "        out = self.experts(x, ids)\n",
    ),
)


def fused(weighs: str) -> tuple[tuple[str, str], ...]:
    return tuple((old, new.replace("WEIGHS", weighs)) for old, new in FUSED)


def test_the_weight_of_what_every_rank_has_is_divided_by_their_number(judged: Judge) -> None:
    library = {"layers/moe/held.py": EXPERTS}
    result = judged(*fused("pass"), library=library)
    (finding,) = result.findings
    assert (finding.rule, finding.kind, finding.row) == ("replicated-addend", "double", "0000")
    assert (finding.cls, finding.takes) == ("Block", ("moe_ep_size > 1",))
    assert (finding.reach, finding.needs) == ("conditional", ("a ROCm GPU",))
    assert "fused into the routed" in finding.message
    assert judged(*fused(DIVIDES), library=library).rules == []


@pytest.mark.parametrize(
    "experts",
    [
        # every rank's share is a share of all of them
        EXPERTS.replace("(num_experts - more)", "num_experts").replace(" + more", ""),
        # what it adds them to is no share
        EXPERTS.replace("// self.moe_ep_size", ""),
    ],
)
def test_experts_that_are_split_like_the_others_need_nothing(judged: Judge, experts: str) -> None:
    assert judged(*fused("pass"), library={"layers/moe/held.py": experts}).rules == []


def test_a_router_that_is_told_of_them_weighs_them_itself(judged: Judge) -> None:
    told = ("self.topk = TopK(config.top_k)\n", "self.topk = TopK(config.top_k, more=others)\n")
    library = {"layers/moe/held.py": EXPERTS}
    assert judged(*fused("pass"), told, library=library).rules == []


def test_the_argument_may_be_called_anything(judged: Judge) -> None:
    def renamed(text: str) -> str:
        return re.sub(r"\bmore\b", "jkl", re.sub(r"\bothers\b", "mno", text))

    changes = tuple((old, renamed(new)) for old, new in fused("pass"))
    result = judged(*changes, library={"layers/moe/held.py": renamed(EXPERTS)})
    assert result.rules == [("replicated-addend", "0000")]
