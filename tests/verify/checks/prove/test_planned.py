"""The plan on every legal deployment, each of its fields corrupted, and against brute force."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, replace
from itertools import product

import pytest

from helper import Consumer, Layer, Placement, Plan, PlanError, plan_layer
from helper.layer import Block, Group
from helper.plan import QUIET
from helper.reasons import SKIP_REASONS
from verify.checks.prove.planned import (
    ADDENDS,
    BLOCKS,
    GROUPS,
    PLAN_STEPS,
    Addend,
    judge_plan,
    layers_of,
    mode_of,
    prove_plan,
)
from verify.checks.prove.planned_report import build_plan
from verify.parallel.deployment import Deployment, deployments
from verify.parallel.scene import Scene

SMALL = [
    weighted.deployment
    for weighted in deployments(max_world_size=8)
    if weighted.deployment.shared == "none" and weighted.deployment.config.tp_size in (1, 2, 4, 8)
]
# a layer of each kind once: the ledger's steps see no more of a deployment than this
CASES = list(
    {
        (each.config, layer, Scene.token_kind(each)): (each, layer)
        for each in reversed(SMALL)
        for block in BLOCKS
        for layer in layers_of(each, block=block)
    }.values()
)


def test_every_sum_is_made_once_on_every_deployment() -> None:
    tally = prove_plan(max_world_size=16)
    assert tally.faults == {}
    assert set(tally.kinds) == {"exact"}
    assert tally.kinds["exact"] == tally.cases > 30_000_000


def test_what_the_plan_calls_routed_is_what_the_configuration_makes_partial() -> None:
    for deployment, layer in CASES:
        plan = plan_layer(deployment.config, layer)
        if layer.block == "dense" or plan.rows == "own share":
            continue
        scene = Scene(deployment=deployment, mode=mode_of(plan))
        made, told = (
            PLAN_STEPS[step](scene, scene.mlp_input)
            for step in ("routed_experts", f"mlp_over_{plan.routed.over}")
        )
        assert made.ranks == told.ranks


def _others(plan: Plan, name: str) -> list[Plan]:
    """The plan with one field changed to each other value."""
    if name == "consumer":
        return [replace(plan, consumer=each) for each in CONSUMERS if each != plan.consumer]
    if name in ("routed", "shared", "dense"):
        placements = [Placement(over=group) for group in ("none", *GROUPS)]
        return [replace(plan, **{name: p}) for p in placements if p != getattr(plan, name)]
    values = {
        "rows": ("all", "attention group", "own share"),
        "block_sum": ("none", *GROUPS),
        "whole_on": ("every rank", "first rank"),
    }[name]
    return [replace(plan, **{name: v}) for v in values if v != getattr(plan, name)]


@pytest.mark.parametrize("name", [f.name for f in fields(Plan) if f.name != "why"])
def test_corrupting_a_field_is_found_or_changes_nothing(name: str) -> None:
    """Equivalent corruptions only rename the same ranks or the same rows."""
    found = 0
    for deployment, layer in CASES:
        if deployment.config.tp_size == 1:
            continue
        unread = ("dense",) if layer.block == "experts" else ("routed", "shared", "whole_on")
        if name in unread:
            continue  # about the other kind of block
        right = plan_layer(deployment.config, layer)
        for wrong in _others(right, name):
            verdicts = _verdicts(deployment, layer, wrong)
            if verdicts != {"exact"}:
                found += 1
            else:
                assert _equivalent(deployment, right, wrong, name), (deployment, layer, wrong)
    assert found > 50


def _verdicts(deployment: Deployment, layer: Layer, plan: Plan) -> set[str]:
    addends = ADDENDS if layer.block == "experts" else ADDENDS[:1]
    try:
        return {judge_plan(deployment, layer, plan, addend).kind for addend in addends}
    except KeyError:
        return {"no such step"}


def _equivalent(deployment: Deployment, right: Plan, wrong: Plan, name: str) -> bool:
    """Whether the corruption is another name for what the plan says, or another right way."""

    def ranks(group: Group) -> object:
        alone = tuple((rank,) for rank in range(deployment.config.tp_size))
        return alone if group == "none" else getattr(deployment.layout, group)

    def rows(plan: Plan) -> object:
        return Scene(deployment=deployment, mode=mode_of(plan)).mlp_input.ranks

    if name == "rows":
        return rows(right) == rows(wrong)
    if name == "whole_on":
        return right.consumer.over == "none" or len(ranks(right.consumer.over)[0]) == 1
    if name == "block_sum":
        return ranks(right.block_sum) == ranks(wrong.block_sum)
    if name == "consumer":
        return ranks(right.consumer.over) == ranks(wrong.consumer.over)
    return ranks(getattr(right, name).over) == ranks(getattr(wrong, name).over)


def test_a_wrong_plan_is_a_finding_with_its_counts() -> None:
    def without_the_stage_end(deployment: Deployment, layer: Layer) -> Plan:
        if layer.next == "stage end":
            layer = replace(layer, next="fused norm")
        right = plan_layer(deployment.config, layer)
        if right.consumer.step != "fused norm" or deployment.position != "stage-end":
            return right
        return replace(right, consumer=Consumer(step="nothing", over="none"))

    report = build_plan(max_ranks=2, planner=without_the_stage_end)
    assert report.findings
    assert {finding.rule for finding in report.findings} >= {"ledger-missing"}
    assert all(finding.counts for finding in report.findings)


def _consumers() -> Iterator[Consumer]:
    for step in (*QUIET, *(reason.step for reason in SKIP_REASONS if reason.form != "dispatch")):
        for over in ("none", *GROUPS):
            with suppress(PlanError):
                yield Consumer(step=step, over=over)


def _cost(deployment: Deployment, plan: Plan, layer: Layer) -> tuple[int, int]:
    """Ranks that are summed over, and how few shards the part beside the experts is cut into."""

    def size(group: Group) -> int:
        return 1 if group == "none" else len(getattr(deployment.layout, group)[0])

    part = plan.dense if layer.block == "dense" else plan.shared
    return size(plan.block_sum) * size(plan.consumer.over), -size(part.over)


@pytest.mark.parametrize("block", BLOCKS)
def test_no_cheaper_right_choice_exists(block: Block) -> None:
    """Brute force over where a part is placed and who sums over which group, on 2, 4 and 8 ranks.

    A dense MLP under context parallelism is the exception that `why` accounts for: where contexts
    happen to agree (decode) it could be sharded over more ranks, but weights are loaded once.
    """
    for deployment, layer in CASES:
        if layer.block != block or deployment.config.tp_size == 1:
            continue
        ours = plan_layer(deployment.config, layer)
        addend: Addend = "none" if block == "dense" else "shared"
        for over, block_sum in product(("none", *GROUPS), repeat=2):
            part = {"dense" if block == "dense" else "shared": Placement(over=over)}
            for consumer in CONSUMERS:
                other = replace(ours, block_sum=block_sum, consumer=consumer, **part)
                theirs, own = (_cost(deployment, each, layer) for each in (other, ours))
                if theirs == own or theirs[0] > own[0] or theirs[1] > own[1]:
                    continue  # no cheaper
                if not _possible(layer, consumer):
                    continue
                assert _judged(deployment, layer, other, addend) != "exact" or (
                    block == "dense" and deployment.config.attn_cp_size > 1
                ), (deployment, layer, other)


def _possible(layer: Layer, consumer: Consumer) -> bool:
    """Whether the layer has such a step at all."""
    if consumer.step == "fused norm":
        return layer.next == "fused norm"
    return consumer.step not in ("reduce_scatter", "reduce_scatterv") or layer.may_scatter


def _judged(deployment: Deployment, layer: Layer, plan: Plan, addend: Addend) -> str:
    try:
        return judge_plan(deployment, layer, plan, addend).kind
    except KeyError:
        return "no such step"


CONSUMERS = list(_consumers())
