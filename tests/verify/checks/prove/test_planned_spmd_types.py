"""Layers that follow the plan, typed by spmd_types: what it leaves is the same on every rank.

Its algebra: a partial sum is P on the axes it is owed on, an all-reduce takes P to R, P and R
cannot be added, and reducing what is R already does not type. It knows no rows: only layers whose
ranks keep theirs.
"""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

from helper import Consumer, Layer, MoeConfig, Placement, Plan, plan_layer

spmd = pytest.importorskip("spmd_types")
checker = pytest.importorskip("spmd_types.checker")
init_device_mesh = pytest.importorskip("torch.distributed.device_mesh").init_device_mesh

RANKS = 6
NEXT = ("norm", "fused norm", "stage end", "model end")
# by name, as the ranks of each are numbered: copies, experts, width
CONFIGS = {
    "tp": MoeConfig(tp_size=RANKS),
    "ep": MoeConfig(tp_size=RANKS, ep_size=RANKS),
    "hybrid": MoeConfig(tp_size=RANKS, ep_size=2),
    "copies": MoeConfig(tp_size=RANKS, moe_dp_size=2, attn_cp_size=2),
    "copies, ep": MoeConfig(tp_size=RANKS, ep_size=3, moe_dp_size=2, attn_cp_size=2),
    "contexts": MoeConfig(tp_size=RANKS, attn_cp_size=2),
}
AXES = ("copies", "ep", "moe_tp")
GROUPS = {"none": (), "tp": AXES, "ep": ("ep",), "moe_tp": ("moe_tp",)}


@pytest.fixture(scope="module")
def group():
    """Starts the stand-in for a process group that types are checked with."""
    if dist.is_initialized():
        pytest.skip("another test's process group is up")
    dist.init_process_group(backend="fake", rank=0, world_size=RANKS)
    yield
    dist.destroy_process_group()


def typed(config: MoeConfig, plan: Plan) -> str:
    """`same on every rank`, or what does not type."""
    sizes = (config.moe_dp_size, config.ep_size, config.moe_tp_size)
    mesh = init_device_mesh("cpu", sizes, mesh_dim_names=AXES)
    # an axis of one rank is owed nothing
    axes = [axis for axis, size in zip(AXES, sizes, strict=True) if size > 1]
    groups = {axis: mesh.get_group(axis) for axis in axes}

    def part(*partial: str) -> torch.Tensor:
        tensor = torch.randn(4)
        types = {groups[axis]: spmd.P if axis in partial else spmd.R for axis in axes}
        spmd.assert_type(tensor, types)
        return tensor

    def summed(tensor: torch.Tensor, over: str) -> torch.Tensor:
        for axis in GROUPS[over]:
            if axis in groups:
                tensor = spmd.all_reduce(tensor, groups[axis], src=spmd.P, dst=spmd.R)
        return tensor

    with spmd.set_current_mesh(mesh), checker.typecheck():
        try:
            # what the experts leave is the configuration's doing, the rest the plan's
            held = part("ep", "moe_tp") + part(*GROUPS[plan.shared.over])
            held = summed(held, plan.block_sum)
            if plan.whole_on == "every rank":
                held = held + part()
            held = summed(held, plan.consumer.over)
            spmd.assert_type(held, dict.fromkeys(groups.values(), spmd.R))
        except spmd.SpmdTypeError as error:
            return str(error).splitlines()[0]
    return "same on every rank"


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("following", NEXT)
def test_what_a_plan_leaves_is_typed_the_same_everywhere(group, name, following):
    config = CONFIGS[name]
    plan = plan_layer(config, Layer(next=following))
    assert typed(config, plan) == "same on every rank"


@pytest.mark.parametrize(
    ("name", "following", "field", "wrong"),
    [
        ("tp", "norm", "block_sum", "none"),
        ("hybrid", "norm", "block_sum", "ep"),
        ("hybrid", "fused norm", "block_sum", "tp"),
        ("hybrid", "fused norm", "consumer", Consumer(step="fused norm", over="moe_tp")),
        ("hybrid", "fused norm", "whole_on", "every rank"),
        ("hybrid", "norm", "shared", Placement(over="none")),
        ("copies", "norm", "block_sum", "tp"),
        ("copies", "norm", "shared", Placement(over="tp")),
        ("copies, ep", "norm", "block_sum", "tp"),
    ],
)
def test_a_wrong_field_does_not_type(group, name, following, field, wrong):
    config = CONFIGS[name]
    plan = plan_layer(config, Layer(next=following))
    assert getattr(plan, field) != wrong
    assert typed(config, replace(plan, **{field: wrong})) != "same on every rank"
