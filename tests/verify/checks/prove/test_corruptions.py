"""Every step, done wrong on purpose, changes some verdict from exact: no step is decoration."""

import pytest

from verify.checks.prove.judge import judge
from verify.checks.prove.subject import dense_subject, helper_guards
from verify.engines.sglang import steps as upstream
from verify.parallel.counts import State, all_reduce, by_rank, keep, produce, reduce_scatter
from verify.parallel.deployment import Deployment, deployments
from verify.parallel.scene import Scene


def nothing(scene: Scene, state: State) -> State:
    del scene
    return state


def over_neighbours(scene: Scene, state: State) -> State:
    """The wrong group: pairs of neighbouring ranks."""
    size = scene.world_size
    return all_reduce(state, [range(start, min(start + 2, size)) for start in range(0, size, 2)])


def twice(name: str):
    def step(scene: Scene, state: State) -> State:
        return upstream.STEPS[name](scene, upstream.STEPS[name](scene, state))

    return step


def everyones_first_rows(scene: Scene, state: State) -> State:
    """The forgotten slice: every rank keeps the rows of group 0."""
    return by_rank(keep(state.ranks, scene.sizes, [0] * scene.world_size), state.owed)


def without_own_gather(scene: Scene, state: State) -> State:
    return reduce_scatter(state, scene.layout.tp)


def whole_on_every_rank(scene: Scene, state: State) -> State:
    return produce(state, "shared", different=scene.world_size)


def routed_everywhere(scene: Scene, state: State) -> State:
    return produce(state, "routed", different=scene.world_size)


def one_rank_too_few(scene: Scene, state: State) -> State:
    last = scene.world_size - 1
    return all_reduce(state, [range(last), [last]])


CORRUPTIONS = {
    "routed_experts": [routed_everywhere, twice("routed_experts")],
    "all_to_all_experts": [upstream.routed_experts, twice("all_to_all_experts")],
    "fp4_dispatch": [nothing],
    "fp4_combine": [nothing, everyones_first_rows],
    "shared_sharded": [whole_on_every_rank, twice("shared_sharded")],
    "shared_replicated": [upstream.shared_sharded, twice("shared_replicated")],
    "dense_mlp": [routed_everywhere, twice("dense_mlp")],
    "dense_mlp_fully_dp": [upstream.dense_mlp, twice("dense_mlp_fully_dp")],
    "ep_all_reduce": [nothing, over_neighbours, twice("ep_all_reduce")],
    "moe_tp_all_reduce": [nothing, upstream.ep_all_reduce, twice("moe_tp_all_reduce")],
    "tp_all_reduce": [nothing, over_neighbours, one_rank_too_few, twice("tp_all_reduce")],
    "dp_reduce_scatterv": [upstream.dp_scatter, nothing, everyones_first_rows],
    "dp_reduce_scatter": [upstream.dp_scatter, without_own_gather],
    "dp_scatter": [nothing, everyones_first_rows, upstream.dp_reduce_scatter],
    "moe_cp_slice": [nothing, everyones_first_rows],
    "residual_add": [twice("residual_add")],
    "attention_gather": [nothing, upstream.tp_all_reduce],
}


def test_every_step_is_corrupted():
    assert set(CORRUPTIONS) == set(upstream.STEPS)


@pytest.fixture(scope="module")
def holding() -> dict[str, list[tuple[Deployment, object]]]:
    """Deployments of up to four ranks in which a block holds, by the steps they take."""
    blocks = (helper_guards("one-site"), helper_guards("two-site"), dense_subject().guards)
    found: dict[str, list[tuple[Deployment, object]]] = {}
    for weighted in deployments(max_world_size=4):
        for guards in blocks:
            verdict = judge(weighted.deployment, guards)
            if verdict.kind == "exact":
                for step in verdict.steps:
                    found.setdefault(step, []).append((weighted.deployment, guards))
    return found


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        pytest.param(name, wrong, id=f"{name}-{index}")
        for name, wrongs in CORRUPTIONS.items()
        for index, wrong in enumerate(wrongs)
    ],
)
def test_a_wrong_step_is_caught(holding, name, wrong):
    assert holding[name], "the step is never taken where a block holds"
    corrupted = {**upstream.STEPS, name: wrong}
    assert any(
        judge(deployment, guards, steps=corrupted).kind != "exact"
        for deployment, guards in holding[name]
    )


def test_a_residual_added_before_the_reduction_is_counted_by_every_rank():
    guards = helper_guards("one-site")
    deployment = next(
        weighted.deployment
        for weighted in deployments(max_world_size=2, min_world_size=2)
        if judge(weighted.deployment, guards).steps
        == (
            "routed_experts",
            "tp_all_reduce",
            "residual_add",
        )
    )

    def residual_first(scene: Scene, state: State) -> State:
        return upstream.residual_add(scene, upstream.routed_experts(scene, state))

    corrupted = {**upstream.STEPS, "routed_experts": residual_first, "residual_add": nothing}
    verdict = judge(deployment, guards, steps=corrupted)
    assert (verdict.kind, verdict.family) == ("double", "residual")
