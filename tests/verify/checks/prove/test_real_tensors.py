"""The ledger's verdict equals what real tensors on real ranks give."""

from functools import cache

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verify.checks.prove.judge import judge, run
from verify.engines.ledger import LayerTraits
from verify.engines.sglang.layer import RELEASE_0_5_11, plan
from verify.engines.sglang.steps import STEPS
from verify.logic.flags import argument_flags, flag_names
from verify.parallel.deployment import Deployment, deployments
from verify.parallel.guards import Guards
from verify.parallel.scene import Scene

FEW = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@cache
def small() -> tuple[Deployment, ...]:
    return tuple(weighted.deployment for weighted in deployments(max_world_size=6))


@cache
def by_size() -> dict[int, list[Deployment]]:
    sizes: dict[int, list[Deployment]] = {}
    for deployment in small():
        sizes.setdefault(deployment.config.tp_size, []).append(deployment)
    return sizes


@st.composite
def any_deployment(draw: st.DrawFn) -> Deployment:
    # by size first: most deployments of at most six ranks have six
    return draw(st.sampled_from(by_size()[draw(st.integers(1, 6))]))


tables = st.integers(0, (1 << (1 << len(flag_names()))) - 1)
guards = st.builds(
    Guards,
    producer=st.sampled_from(["one-site", "two-site", "dense"]),
    skip_tp=tables,
    skip_ep=tables,
    accepts=st.frozensets(st.sampled_from(sorted(argument_flags()))),
    allows_reduce_scatter=st.sampled_from([None, True, False]),
    tags_fusion=st.booleans(),
    knows_last_layer=st.booleans(),
    reached_by=st.sampled_from([(), ("mori",)]),
)
COLLECTIVES = [
    "ep_all_reduce",
    "moe_tp_all_reduce",
    "tp_all_reduce",
    "dp_reduce_scatterv",
    "dp_reduce_scatter",
    "dp_scatter",
]


@FEW
@given(any_deployment(), guards)
def test_random_guards_in_random_deployments(real_tensors, deployment, guards):
    verdict = judge(deployment, guards)
    mode = plan(deployment, LayerTraits.of(guards), RELEASE_0_5_11).mode
    assert verdict.kind == real_tensors.kind(deployment, mode, verdict.steps)


@FEW
@given(any_deployment(), st.data())
def test_random_programs(real_tensors, deployment, data):
    mode = data.draw(st.sampled_from(["full", "moe_full", "scattered"]))
    producer = data.draw(
        st.sampled_from(["routed_experts", "all_to_all_experts", "dense_mlp", "dense_mlp_fully_dp"])
    )
    shared = data.draw(st.sampled_from([(), ("shared_sharded",), ("shared_replicated",)]))
    collectives = data.draw(st.lists(st.sampled_from(COLLECTIVES), max_size=3))
    program = (producer, *shared, *collectives, "residual_add", "attention_gather")
    verdict = run(Scene(deployment=deployment, mode=mode), program, row="")
    assert verdict.kind == real_tensors.kind(deployment, mode, program)


def test_every_step_is_known_to_the_second_judge(real_tensors):
    """A step that only the ledger knows would go unjudged."""
    deployment = next(iter(small()))
    for step in STEPS:
        assert real_tensors.kind(deployment, "full", (step,)) in {"exact", "missing"}
    assert real_tensors.kind(deployment, "full", ("unheard of",)) == "crash"
