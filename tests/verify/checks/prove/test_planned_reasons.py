"""One more skip reason is one entry: plan, report and proof follow, and a wrong one is found.

What the predicate and the tables do with it: `tests/verify/checks/pull_request`,
`test_fifth_reason.py`.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from helper import SKIP_REASONS, Layer, MoeConfig, SkipReason, plan_layer, reasons
from verify.checks.prove.planned import prove_plan
from verify.checks.prove.planned_report import build_plan
from verify.checks.pull_request.verdicts import judged

HYBRID = MoeConfig(tp_size=4, ep_size=2)
ATTENTION_DP = MoeConfig(tp_size=4, attn_dp_size=2, enable_dp_attention=True)
LATE = SkipReason(
    flag="NW",
    name="a_new_step",
    paths=("EP", "TP"),
    completed_by="an all-reduce before the tensors are sent",
    step="late all-reduce",
    over="partial",
    form="in place",
    completes=lambda config, layer: layer.next == "stage end",
)
HANDING_BACK = replace(
    LATE,
    completed_by="a sum that hands any number of rows back",
    step="late scatter",
    over="tp",
    form="scatter",
    completes=lambda config, layer: True,
)
IN_DISPATCHER = replace(
    LATE,
    completed_by="another combine",
    step="another combine",
    over="tp",
    form="dispatch",
    completes=lambda config, layer: config.attn_dp_size == config.tp_size > 1,
)


@pytest.fixture
def listed(monkeypatch):
    """Makes `reasons` the helper's list."""

    def make(*listed: SkipReason) -> None:
        monkeypatch.setattr(reasons, "SKIP_REASONS", listed)
        plan_layer.cache_clear()

    yield make
    monkeypatch.undo()
    plan_layer.cache_clear()


def without(flag: str) -> tuple[SkipReason, ...]:
    return tuple(reason for reason in SKIP_REASONS if reason.flag != flag)


@pytest.mark.parametrize("added", [LATE, HANDING_BACK, IN_DISPATCHER], ids=lambda r: r.form)
def test_the_proof_follows_a_new_reason(listed: Callable[..., None], added: SkipReason) -> None:
    listed(*SKIP_REASONS, added)
    used = set()

    def watched(deployment, layer):
        plan = plan_layer(deployment.config, layer)
        used.add(plan.consumer.step)
        if added.completed_by in plan.why:
            used.add(added.step)
        return plan

    tally = prove_plan(max_world_size=4, planner=watched)
    assert added.step in used
    assert tally.faults == {}
    assert all(row.plan_exact == row.deployments for row in judged(max_ranks=4).rows)


def test_the_plan_names_who_completes_and_over_which_group(listed: Callable[..., None]) -> None:
    layer = Layer(next="stage end")
    assert plan_layer(HYBRID, layer).block_sum == "tp"
    listed(*SKIP_REASONS, LATE)
    plan = plan_layer(HYBRID, layer)
    assert (plan.block_sum, plan.consumer.step, plan.consumer.over) == (
        "none",
        "late all-reduce",
        "tp",
    )
    assert plan.why == "summed over tp by an all-reduce before the tensors are sent"
    assert plan.whole_on == "first rank"


def test_a_reason_removed_is_a_sum_that_the_block_makes(listed: Callable[..., None]) -> None:
    layer = Layer(next="fused norm")
    assert plan_layer(HYBRID, layer).block_sum == "none"
    listed(*without("AF"))
    assert plan_layer(HYBRID, layer).block_sum == "tp"


@pytest.mark.parametrize(
    ("paths", "ep_size", "moe_dp_size", "block_sum"),
    [
        # over the TP group a block owes the sum of both paths, where it has both
        (("EP",), 2, 1, "tp"),
        (("TP",), 2, 1, "tp"),
        (("TP",), 1, 1, "none"),
        (("EP",), 1, 1, "tp"),
        # and where copies of the experts sum apart, of one
        (("EP",), 2, 2, "none"),
        (("TP",), 2, 2, "ep"),
        (("TP",), 1, 2, "none"),
        (("EP",), 1, 2, "moe_tp"),
    ],
)
def test_a_step_stands_in_for_its_paths_only(
    listed: Callable[..., None],
    paths: tuple[str, ...],
    ep_size: int,
    moe_dp_size: int,
    block_sum: str,
) -> None:
    listed(*SKIP_REASONS, replace(LATE, paths=paths))
    config = MoeConfig(
        tp_size=4, ep_size=ep_size, moe_dp_size=moe_dp_size, attn_cp_size=moe_dp_size
    )
    assert plan_layer(config, Layer(next="stage end")).block_sum == block_sum


def test_a_dense_block_owes_the_sum_of_one_path(listed: Callable[..., None]) -> None:
    listed(*SKIP_REASONS, replace(LATE, paths=("TP",)))
    assert plan_layer(HYBRID, Layer(next="stage end")).block_sum == "tp"
    assert plan_layer(HYBRID, Layer(next="stage end", block="dense")).block_sum == "none"


def test_a_dispatcher_completes_nothing_of_a_dense_block(listed: Callable[..., None]) -> None:
    listed(*without("DP"), IN_DISPATCHER)
    config = MoeConfig(tp_size=4, ep_size=4, attn_dp_size=4, enable_dp_attention=True)
    assert plan_layer(config, Layer()).rows == "own share"
    assert plan_layer(config, Layer(block="dense")).block_sum == "tp"


def test_a_step_over_another_group_is_no_reason(listed: Callable[..., None]) -> None:
    listed(*SKIP_REASONS, replace(LATE, over="ep"))
    assert plan_layer(HYBRID, Layer(next="stage end")).block_sum == "tp"


@pytest.mark.parametrize("form", ["in place", "scatter"])
def test_a_step_that_leaves_wrong_rows_is_no_reason(listed: Callable[..., None], form: str) -> None:
    """In place, a rank of an attention group would keep others' rows; handing back needs groups."""
    config = ATTENTION_DP if form == "in place" else HYBRID
    listed(*SKIP_REASONS, replace(LATE, form=form))
    assert plan_layer(config, Layer(next="stage end")).block_sum == "tp"


@pytest.mark.parametrize("flag", ["AF", "RS", "DP", "FI"])
def test_a_reason_that_promises_what_no_layer_does_is_found(
    listed: Callable[..., None], flag: str
) -> None:
    """A norm that cannot sum; groups of unequal rows; fewer groups than ranks; no combine."""
    listed(
        *(
            replace(reason, completes=lambda config, layer: True) if reason.flag == flag else reason
            for reason in SKIP_REASONS
        )
    )
    assert build_plan(max_ranks=4).findings
