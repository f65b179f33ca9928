"""The plan on every legal deployment, each of its fields corrupted, and against brute force."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields, replace
from itertools import product

import pytest

from helper import Consumer, Layer, MoeConfig, Placement, Plan, PlanError, plan_layer
from helper.layer import Block, Group
from helper.plan import QUIET, Part
from helper.reasons import SKIP_REASONS
from verify.checks.prove.lattice import Memo, SceneKey
from verify.checks.prove.planned import (
    ADDENDS,
    BLOCKS,
    GROUPS,
    PLAN_STEPS,
    Addend,
    layers_of,
    mode_of,
    program,
    prove_plan,
    the_plan,
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


@pytest.mark.parametrize(
    ("is_special", "max_world_size"),
    [
        (lambda config: config.tp_size > 6, 7),
        (lambda config: config.attn_tp_size == 8, 16),
        (lambda config: config.moe_a2a_backend == "mori", 2),
        (lambda config: config.quantization == "mxfp8", 2),
    ],
)
def test_a_plan_that_looks_at_a_size_or_a_name_is_judged_there(
    is_special: Callable[[MoeConfig], bool], max_world_size: int
) -> None:
    """The ledger judges one configuration for many: for none that is planned in another way."""

    def leaves_it(deployment: Deployment, layer: Layer) -> Plan:
        right = plan_layer(deployment.config, layer)
        if not is_special(deployment.config):
            return right
        return replace(right, rows="all" if right.rows == "own share" else "own share")

    assert prove_plan(max_world_size=max_world_size, planner=leaves_it).faults


def test_what_the_plan_calls_routed_is_what_the_configuration_makes_partial() -> None:
    for deployment, layer in CASES:
        plan = plan_layer(deployment.config, layer)
        if layer.block == "dense" or plan.rows == "own share":
            continue
        scene = Scene(deployment=deployment, mode=mode_of(plan))
        made, told = (
            PLAN_STEPS[step](scene, scene.mlp_input)
            for step in ("routed_experts", f"mlp_over_{plan.over('routed')}")
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
        right = plan_layer(deployment.config, layer)
        if getattr(right, name) is None or (name == "whole_on" and layer.block == "dense"):
            continue  # no such part; a dense block computes nothing beside its MLP
        for wrong in _others(right, name):
            verdicts = _verdicts(deployment, layer, wrong)
            if verdicts != {"exact"}:
                found += 1
            else:
                assert _equivalent(deployment, right, wrong, name), (deployment, layer, wrong)
    assert found > 50


def _verdicts(deployment: Deployment, layer: Layer, plan: Plan) -> set[str]:
    addends = ADDENDS if layer.block == "experts" else ADDENDS[:1]
    return {_judged(deployment, layer, plan, addend) for addend in addends}


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
    return ranks(right.over(name)) == ranks(wrong.over(name))


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


def test_no_layer_makes_a_dispatcher_s_step_after_its_block() -> None:
    for reason in SKIP_REASONS:
        if reason.form == "dispatch":
            with pytest.raises(PlanError, match="no step of a layer after its block"):
                Consumer(step=reason.step, over="tp")


def _consumers() -> Iterator[Consumer]:
    for step in (*QUIET, *(reason.step for reason in SKIP_REASONS if reason.form != "dispatch")):
        for over in ("none", *GROUPS):
            with suppress(PlanError):
                yield Consumer(step=step, over=over)


CUT_LESS = ("weights are loaded once", "on the rank's own tokens is whole on every rank")
"""Why a part is cut into fewer shards than tokens alone would allow."""


def _size(deployment: Deployment, group: Group) -> int:
    return 1 if group == "none" else len(getattr(deployment.layout, group)[0])


def _better(planner: Callable[[Deployment, Layer], Plan], block: Block) -> Iterator[str]:
    """Right choices that sum over fewer ranks, or cut a part into more shards, than the plan's.

    Brute force over where a part is placed and who sums over which group, on 2, 4 and 8 ranks.
    What is cut less than it could be is an exception only where `why` says so, and only as far as
    its reason goes.
    """
    part: Part = "dense" if block == "dense" else "shared"
    addend: Addend = "none" if block == "dense" else "shared"
    for deployment, layer in CASES:
        if layer.block != block or deployment.config.tp_size == 1:
            continue
        ours = planner(deployment, layer)
        shards = _size(deployment, ours.over(part))
        # the ranks that are summed over, in the block and after it
        sums = _size(deployment, ours.block_sum) * _size(deployment, ours.consumer.over)
        explained = any(reason in ours.why for reason in CUT_LESS)
        for over, block_sum, consumer in product(("none", *GROUPS), ("none", *GROUPS), CONSUMERS):
            theirs = _size(deployment, over)
            # where contexts differ in prefill, attention's group still holds the same tokens
            excused = explained and (
                layer.dense_on_own_rows
                or layer.contexts_differ
                or theirs > _size(deployment, "attn_tp")
            )
            cut = theirs > shards and not excused
            summed = _size(deployment, block_sum) * _size(deployment, consumer.over)
            fewer = theirs == shards and summed < sums
            if not ((cut or fewer) and _possible(layer, consumer)):
                continue
            changed = {"block_sum": block_sum, "consumer": consumer, part: Placement(over=over)}
            other = replace(ours, **changed)
            if _judged(deployment, layer, other, addend) == "exact":
                yield f"{deployment} {layer} {other}"


@pytest.mark.parametrize("block", BLOCKS)
def test_no_cheaper_right_choice_exists(block: Block) -> None:
    assert not list(_better(the_plan, block))


def test_a_plan_that_cuts_nothing_is_told_of_a_better_one() -> None:
    def whole(deployment: Deployment, layer: Layer) -> Plan:
        return replace(
            plan_layer(deployment.config, layer),
            block_sum="none",
            consumer=Consumer(step="nothing", over="none"),
            dense=Placement(over="none"),
            why="",
        )

    assert next(_better(whole, "dense"))


def test_an_explanation_excuses_no_more_than_it_explains() -> None:
    def whole(deployment: Deployment, layer: Layer) -> Plan:
        right = plan_layer(deployment.config, layer)
        if layer.block != "dense" or deployment.config.attn_cp_size == 1:
            return right
        nothing = Consumer(step="nothing", over="none")
        return replace(right, dense=Placement(over="none"), block_sum="none", consumer=nothing)

    assert CUT_LESS[0] in next(_better(whole, "dense"))


def test_a_dense_mlp_that_is_cut_less_says_why() -> None:
    """Where contexts agree (decode) it could be over all ranks, but its weights are loaded once."""

    def silent(deployment: Deployment, layer: Layer) -> Plan:
        return replace(plan_layer(deployment.config, layer), why="")

    for named in ("attn_cp_size=2", "dense_on_own_rows=True"):
        assert any(named in each for each in _better(silent, "dense"))


def _possible(layer: Layer, consumer: Consumer) -> bool:
    """Whether the layer has such a step at all."""
    if consumer.step == "fused norm":
        return layer.next == "fused norm"
    return consumer.step not in ("reduce_scatter", "reduce_scatterv") or layer.may_scatter


def _judged(deployment: Deployment, layer: Layer, plan: Plan, addend: Addend) -> str:
    steps = program(deployment, layer, plan, addend)
    if not all(step in PLAN_STEPS for step in steps):
        return "no such step"
    scene = SceneKey(
        mode_of(plan), Scene.token_kind(deployment), deployment.context_parallel_extend
    )
    key = (deployment.config, scene)
    if key not in MEMOS:
        MEMOS[key] = Memo(Scene(deployment=deployment, mode=scene.mode), PLAN_STEPS)
    return MEMOS[key].verdict(steps)[0]


MEMOS: dict[tuple[MoeConfig, SceneKey], Memo] = {}


CONSUMERS = list(_consumers())
