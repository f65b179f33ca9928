"""Layers that follow the plan on real ranks: which there are, and each field of the plan wrong."""

from dataclasses import replace
from functools import cache

import pytest

from gpu_tests.blocks import DENSE
from gpu_tests.expect import expected
from gpu_tests.job import on_this_machine
from gpu_tests.plan import cases
from gpu_tests.planned import PlannedCase
from helper import Consumer, Placement
from helper.plan import QUIET
from helper.reasons import SKIP_REASONS

LLAMA = "llama4/Llama4MoE.forward"
NOWHERE = Placement(over="none")


@cache
def every_case(world_size: int, model: str) -> tuple[PlannedCase, ...]:
    return tuple(cases(world_size=world_size, guard="plan", dtypes=("float32",), models=(model,)))


def test_every_step_rows_and_placement_of_a_plan_is_run():
    found = [*every_case(4, "llama4"), *every_case(4, "deepseek_v2")]
    plans = [case.plan for case in found]
    steps = {reason.step for reason in SKIP_REASONS if reason.form != "dispatch"}
    assert {plan.consumer.step for plan in plans} == {*QUIET, *steps}
    assert {plan.rows for plan in plans} == {"all", "attention group", "own share"}
    assert {plan.block_sum for plan in plans} == {"none", "tp", "ep", "moe_tp", "attn_tp"}
    parts = {case.plan.over("dense" if case.dense else "shared") for case in found}
    assert parts == {"none", "tp", "ep", "moe_tp", "attn_tp"}
    assert {case.producer for case in found} == {
        "experts",
        "FP4 all-gather",
        "all-to-all",
        "fetched experts",
        "dense MLP",
        "whole dense MLP",
    }
    assert {case.addend for case in found} == {"none", "shared", "whole"}
    assert {plan.whole_on for plan in plans} == {"every rank", "first rank"}


def test_a_case_expects_nothing_but_exact():
    for model in ("llama4", "deepseek_v2", "qwen3_moe"):
        for world_size in (1, 2, 4, 8):
            assert {expected(case).kind for case in every_case(world_size, model)} == {"exact"}


def wrong_plans() -> dict[str, PlannedCase]:
    """Cases on two ranks whose plan has one field that is wrong."""

    def first(*, addend: str, model: str = "llama4", **wanted: object) -> PlannedCase:
        return next(
            case
            for case in every_case(2, model)
            if case.addend == addend
            and case.subject in (LLAMA, DENSE.block)
            and all(getattr(case.plan, name) == value for name, value in wanted.items())
        )

    fused = Consumer(step="fused norm", over="tp")
    owed = first(addend="none", consumer=fused)
    summed = first(addend="none", block_sum="tp", rows="attention group")
    scattered = first(addend="none", consumer=Consumer(step="reduce_scatterv", over="tp"))
    nothing = Consumer(step="nothing", over="none")
    shared = first(addend="shared", block_sum="tp", rows="attention group")
    whole = first(addend="whole", consumer=fused)
    dense = first(addend="none", model="deepseek_v2", block_sum="tp", rows="attention group")
    own = first(addend="none", rows="own share", consumer=nothing)
    return {
        "block_sum missing": replace(summed, plan=replace(summed.plan, block_sum="none")),
        "block_sum twice": replace(owed, plan=replace(owed.plan, block_sum="tp")),
        "block_sum mixed": replace(own, plan=replace(own.plan, block_sum="tp")),
        "consumer missing": replace(owed, plan=replace(owed.plan, consumer=nothing)),
        "consumer own rows": replace(
            scattered,
            plan=replace(scattered.plan, consumer=Consumer(step="own rows", over="none")),
        ),
        "shared whole": replace(shared, plan=replace(shared.plan, shared=NOWHERE)),
        "dense whole": replace(dense, plan=replace(dense.plan, dense=NOWHERE)),
        "whole on every rank": replace(whole, plan=replace(whole.plan, whole_on="every rank")),
    }


SEEN = {
    "block_sum missing": "missing",
    "block_sum twice": "double",
    "block_sum mixed": "mixed",
    "consumer missing": "missing",
    "consumer own rows": "missing",
    "shared whole": "double",
    "dense whole": "double",
    "whole on every rank": "double",
}


@pytest.mark.ranks
@pytest.mark.timeout(300)
def test_a_field_of_the_plan_that_is_wrong_is_seen_on_ranks():
    wrong = wrong_plans()
    outcomes = on_this_machine(list(wrong.values()), world_size=2, backend="gloo", deadline=60.0)
    seen = dict(zip(wrong, outcomes, strict=True))
    assert {name: outcome.kind for name, outcome in seen.items()} == SEEN
    # and the ledger counts each of them so
    assert {name: outcome.problem for name, outcome in seen.items()} == dict.fromkeys(SEEN, "")
