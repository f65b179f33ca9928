"""Cases that ranks cannot tell apart run once, and what they yield is each one's own answer."""

from contextlib import contextmanager
from dataclasses import replace

import pytest

from gpu_tests import job
from gpu_tests.cases import ON_TORCH
from gpu_tests.judge import RankVerdict
from gpu_tests.plan import cases
from gpu_tests.specs import SPECS, structure

TWINS = (
    "deepseek_v2/DeepseekV2MoE.forward_normal",
    "deepseek_v2/DeepseekV2MoE.forward_normal_dual_stream",
)
# of one structure, and told the same
MODELS = (
    "bailing_moe/BailingMoESparseMoeBlock.forward_normal",
    "bailing_moe_linear/BailingMoE.forward",
)


def of(subjects, world_size):
    models = tuple(dict.fromkeys(subject.partition("/")[0] for subject in subjects))
    every = cases(world_size=world_size, dtypes=("float32",), models=models)
    return [case for case in every if case.subject in subjects]


def of_twins(world_size):
    return of(TWINS, world_size)


@pytest.mark.parametrize("subjects", [TWINS, MODELS])
def test_two_ways_through_one_block_and_two_models_of_one_structure_are_alike(subjects):
    todo = of(subjects, 2)
    assert {case.subject for case in todo} == set(subjects)
    assert len({case.alike for case in todo}) == len(todo) / 2


def test_what_a_structure_leaves_out_is_a_name_or_placed_by_the_deployment():
    spec = SPECS["deepseek_v2"]
    left_out = {"model", "config", "public_experts", "shared_whole_under_fp4"}
    for name, value in vars(spec).items():
        changed = replace(spec, **{name: not value if isinstance(value, bool) else value * 2})
        assert (structure(changed) == structure(spec)) == (name in left_out), name


def test_whatever_ranks_could_tell_apart_is_not_alike():
    case = next(case for case in of_twins(2) if case.row == "0000" and case.reached_sites)
    others = [
        replace(case, guard="False"),
        replace(case, dtype="bfloat16"),
        replace(case, subject="qwen2_moe/Qwen2MoeSparseMoeBlock.forward"),
        replace(case, kernels=replace(ON_TORCH, norm="flashinfer")),
        replace(case, deployment=replace(case.deployment, padding="sum_len", tokens="uneven")),
    ]
    assert len({case.alike, *(other.alike for other in others)}) == 1 + len(others)
    assert replace(case, guard="not (AF or RS or DP or FI)").alike == case.alike


def test_a_plan_makes_a_difference():
    todo = list(cases(world_size=2, guard="plan", dtypes=("float32",), models=("deepseek_v2",)))
    case = next(case for case in todo if case.subject == TWINS[0])
    twin = replace(case, subject=TWINS[1])
    others = [
        replace(case, plan=replace(case.plan, rows="other")),
        replace(case, layer=replace(case.layer, next="other")),
        replace(case, addend="other"),
        replace(case, deployment=replace(case.deployment, tokens="uneven")),
    ]
    assert twin.alike == case.alike
    assert len({case.alike, *(other.alike for other in others)}) == 1 + len(others)


def test_only_one_of_them_runs_and_each_has_its_outcome(monkeypatch):
    todo = of_twins(2)
    given = []

    class Pool:
        def run(self, items, *, titles):
            given.extend(items)
            for number in range(len(items)):
                yield number, [RankVerdict(kind="crash", why=f"{number}")] * 2

    @contextmanager
    def pool(*_, **__):
        yield Pool()

    monkeypatch.setattr(job, "rank_pool", pool)
    # the two of a pair one after the other, and far apart
    for order in (todo, sorted(todo, key=lambda case: case.title.partition(" ")[2])):
        given.clear()
        outcomes = list(job.on_this_machine(order, world_size=2, backend="gloo", deadline=1.0))
        assert [outcome.case for outcome in outcomes] == order
        assert [case.alike for case in given] == list(dict.fromkeys(case.alike for case in order))
        ran = [case.alike for case in given]
        assert [outcome.ranks[0].why for outcome in outcomes] == [
            str(ran.index(case.alike)) for case in order
        ]


@pytest.mark.ranks
@pytest.mark.parametrize("subjects", [TWINS, MODELS])
def test_ranks_do_yield_the_same_for_both(subjects):
    """Each run for itself, the second of a pair too: what is left out would have said the same."""
    apart: dict[str, list[tuple[RankVerdict, ...]]] = {}
    for subject in subjects:
        own = [case for case in of(subjects, 2) if case.subject == subject]
        outcomes = job.on_this_machine(own, world_size=2, backend="gloo", deadline=60.0)
        apart[subject] = [outcome.ranks for outcome in outcomes]
    first, second = apart.values()
    assert first == second
