"""The lattice says of every deployment what judging it by itself says, and counts them all."""

from collections import Counter
from dataclasses import replace

import pytest

from helper import reasons
from verify.checks.prove.judge import judge
from verify.checks.prove.lattice import Features, prove
from verify.checks.prove.subject import (
    Subject,
    dense_subject,
    helper_guards,
    helper_subjects,
    oracle_subjects,
    skip_table,
)
from verify.engines.ledger import LayerTraits
from verify.engines.sglang.layer import RELEASE_0_5_11, applies, plan
from verify.parallel.deployment import deployments
from verify.parallel.guards import Guards

MAX = 4


@pytest.fixture(scope="module")
def subjects():
    strange = Guards(
        producer="two-site",
        skip_ep=skip_table(["DP"]),
        skip_tp=skip_table(["AF", "FI"]),
        accepts=frozenset(["AF"]),
        allows_reduce_scatter=True,
        tags_fusion=False,
        reached_by=("mori",),
        shared_experts="replicated for FI",
    )
    return (
        Subject(name="helper", guards=helper_guards("two-site")),
        Subject(name="strange", guards=strange),
        dense_subject(),
    )


@pytest.fixture(scope="module")
def tally(subjects):
    return prove(subjects, max_world_size=MAX)


def test_every_kind_is_counted_as_often_as_one_by_one(subjects, tally):
    kinds: dict[Guards, Counter[str]] = {subject.guards: Counter() for subject in subjects}
    total = 0
    for weighted in deployments(max_world_size=MAX):
        if any(applies(weighted.deployment, subject.guards) for subject in subjects):
            total += weighted.stands_for
        for subject in subjects:
            if applies(weighted.deployment, subject.guards):
                verdict = judge(weighted.deployment, subject.guards)
                kinds[subject.guards][verdict.kind] += weighted.stands_for
    assert tally.deployments == total
    counted: dict[Guards, Counter[str]] = {subject.guards: Counter() for subject in subjects}
    for (guards, _), kinds_of_row in tally.kinds.items():
        counted[guards].update(kinds_of_row)
    assert counted == kinds
    assert tally.cases == sum(sum(each.values()) for each in kinds.values())


def test_every_fault_is_shown_by_its_example(tally):
    assert tally.faults
    for fault in tally.faults.values():
        verdict = judge(fault.example, fault.guards)
        assert (verdict.kind, verdict.family) == (fault.cause.kind, fault.cause.family)


def test_features_are_all_that_a_plan_asks_of_a_configuration(subjects):
    """Otherwise the lattice would judge one configuration by the steps of another."""
    plans: dict[object, object] = {}
    for weighted in deployments(max_world_size=6):
        deployment = weighted.deployment
        layer = (
            deployment.padding,
            deployment.tokens,
            deployment.fusion,
            deployment.allow_reduce_scatter,
            deployment.position,
            deployment.shared,
            deployment.context_parallel_extend,
            deployment.dense_fully_dp,
        )
        for subject in subjects:
            traits = LayerTraits.of(subject.guards)
            key = (Features.of(deployment.config, RELEASE_0_5_11), layer, traits)
            steps = plan(deployment, traits, RELEASE_0_5_11)
            assert plans.setdefault(key, steps) == steps


def test_the_number_of_processes_changes_nothing(subjects, tally):
    assert prove(subjects, max_world_size=MAX, workers=2) == tally


def test_equal_guards_are_judged_once_and_counted_each(tally):
    guards = helper_guards("two-site")
    twins = (Subject(name="one", guards=guards), Subject(name="other", guards=guards))
    alone = prove(twins[:1], max_world_size=MAX)
    both = prove(twins, max_world_size=MAX)
    assert both.programs == alone.programs
    assert both.cases == 2 * alone.cases


def test_a_reason_added_to_the_helper_is_one_that_no_layer_raises(monkeypatch):
    """The rows double; what the layers of this release do stays the same."""
    before = prove(helper_subjects()[:2], max_world_size=MAX)
    added = replace(reasons.SKIP_REASONS[0], flag="XX", name="xx")
    monkeypatch.setattr(reasons, "SKIP_REASONS", (*reasons.SKIP_REASONS, added))
    after = prove(helper_subjects()[:2], max_world_size=MAX)
    assert after.cases == before.cases
    assert [fault.cause for fault in after.faults.values()] == [
        fault.cause for fault in before.faults.values()
    ]
    assert {row >> 1 for _, row in after.kinds} == {row for _, row in before.kinds}


def test_all_subjects_come_down_to_a_few_guards():
    subjects = (*helper_subjects(), *oracle_subjects())
    assert len({subject.guards for subject in subjects}) < len(subjects) / 4
