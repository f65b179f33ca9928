"""Where a program is a chain of all-reduces, spmd_types types it, and the ledger agrees.

Its algebra: a partial sum is P on the axes it is owed on, an all-reduce takes P to R, and reducing
what is R already does not type.
"""

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from helper import MoeConfig
from verify.checks.prove.judge import run
from verify.parallel.deployment import Deployment
from verify.parallel.scene import Scene

spmd = pytest.importorskip("spmd_types")
checker = pytest.importorskip("spmd_types.checker")
init_device_mesh = pytest.importorskip("torch.distributed.device_mesh").init_device_mesh

EP, MOE_TP = 2, 3
AXES = {
    "ep_all_reduce": ("ep",),
    "moe_tp_all_reduce": ("moe_tp",),
    "tp_all_reduce": ("ep", "moe_tp"),
}


@pytest.fixture(scope="module")
def mesh():
    if dist.is_initialized():
        pytest.skip("another test's process group is up")
    dist.init_process_group(backend="fake", rank=0, world_size=EP * MOE_TP)
    yield init_device_mesh("cpu", (EP, MOE_TP), mesh_dim_names=("ep", "moe_tp"))
    dist.destroy_process_group()


def typed(mesh, program: tuple[str, ...]) -> str:
    groups = {axis: mesh.get_group(axis) for axis in ("ep", "moe_tp")}
    with spmd.set_current_mesh(mesh), checker.typecheck():
        held = torch.randn(4)
        spmd.assert_type(held, dict.fromkeys(groups.values(), spmd.P))
        for step in program:
            for axis in AXES[step]:
                try:
                    held = spmd.all_reduce(held, groups[axis], src=spmd.P, dst=spmd.R)
                except spmd.SpmdTypeError:
                    return "double"
        try:
            spmd.assert_type(held, dict.fromkeys(groups.values(), spmd.R))
        except spmd.SpmdTypeError:
            return "missing"
    return "exact"


def counted(program: tuple[str, ...]) -> str:
    config = MoeConfig(tp_size=EP * MOE_TP, ep_size=EP)
    scene = Scene(deployment=Deployment(config=config), mode="full")
    return run(scene, ("routed_experts", *program), row="").kind


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(AXES)), max_size=3).map(tuple))
def test_the_type_system_agrees(mesh, program):
    assert typed(mesh, program) == counted(program)


def test_all_three_verdicts_are_typed(mesh):
    assert typed(mesh, ()) == "missing"
    assert typed(mesh, ("ep_all_reduce", "moe_tp_all_reduce")) == "exact"
    assert typed(mesh, ("ep_all_reduce", "tp_all_reduce")) == "double"
