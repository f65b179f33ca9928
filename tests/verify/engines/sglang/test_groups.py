"""Collectives of a toy group of GPUs, right and wrong in each way, and a toy fused norm."""

import sys
import types
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from verify.engines.inside.modules import Running  # noqa: E402
from verify.engines.sglang.serving.inside import groups  # noqa: E402

STATE = "sglang.srt.distributed.parallel_state"
NORM = "flashinfer_allreduce_residual_rmsnorm"
MINE, OTHER = [1.0, 2.0], [10.0, 20.0]


class Toy:
    """This rank is the first of two and has `MINE`; the other one has `OTHER`."""

    world_size, rank_in_group, ranks = 2, 0, (0, 1)

    def _all_reduce_in_place(self, input_):
        input_.add_(torch.tensor(OTHER))

    def _all_reduce_out_place(self, input_, method):
        return input_ + torch.tensor(OTHER)

    def _reduce_scatter_tensor(self, output, input):
        output.copy_((input + torch.tensor(OTHER))[:1])

    def reduce_scatterv(self, input_, output=None, sizes=None):
        return (input_ + torch.tensor(OTHER))[: sizes[0]].clone()

    def _all_gather_into_tensor(self, output, input):
        output.copy_(torch.cat([input, torch.tensor(OTHER)]))

    def all_gatherv(self, input_, sizes=None, output=None):
        return [torch.cat([input_, torch.tensor(OTHER)[: sizes[1]]])]


def norm(**named):
    return named["input_tensor"] + torch.tensor(OTHER), named["residual"]


@pytest.fixture
def toy(monkeypatch):
    group = type("GroupCoordinator", (Toy,), dict(vars(Toy)))
    state, fusion = types.ModuleType(STATE), types.ModuleType(groups._FUSION)
    state.GroupCoordinator = group
    for name in ("attn_tp", "moe_ep", "moe_tp"):
        setattr(state, f"get_{name}_group", group)
    setattr(fusion, NORM, norm)
    for name in ("sglang", "sglang.srt", "sglang.srt.distributed", "sglang.srt.layers"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, STATE, state)
    monkeypatch.setitem(sys.modules, groups._FUSION, fusion)
    collectives = groups.Collectives(running=Running(), root=Path(__file__).parent, active=True)
    collectives.install()
    return group(), fusion, collectives


def in_place(group):
    tensor = torch.tensor(MINE)
    group._all_reduce_in_place(tensor)
    return tensor


def scattered(group):
    out = torch.zeros(1)
    group._reduce_scatter_tensor(out, torch.tensor(MINE))
    return out


def gathered(group):
    out = torch.zeros(4)
    group._all_gather_into_tensor(out, torch.tensor(MINE))
    return out


ASKED = {
    "in place": (in_place, [11.0, 22.0], [22.0, 44.0], MINE),
    "out of place": (
        lambda group: group._all_reduce_out_place(torch.tensor(MINE), "ca"),
        [11.0, 22.0],
        [22.0, 44.0],
        MINE,
    ),
    "scattered": (scattered, [11.0], [22.0], [1.0]),
    "scattered unequally": (
        lambda group: group.reduce_scatterv(torch.tensor(MINE), None, [1, 1]),
        [11.0],
        [22.0],
        [1.0],
    ),
    "gathered": (gathered, [*MINE, *OTHER], [*MINE, *MINE], [*MINE, *MINE]),
    "gathered unequally": (
        lambda group: group.all_gatherv(torch.tensor(MINE), [2, 1])[0],
        [*MINE, 10.0],
        None,
        [*MINE, 0.0],
    ),
}


@pytest.mark.parametrize("what", ASKED)
def test_each_is_wrong_in_its_ways_and_then_right_again(toy, what):
    group, _, collectives = toy
    ask, right, doubled, dropped = ASKED[what]
    assert ask(group).tolist() == right
    (site,) = collectives.seen
    for how, wrong in (("doubled", doubled), ("dropped", dropped)):
        if wrong is not None:
            collectives.corrupt(site, how)
            assert ask(group).tolist() == wrong
            assert collectives.struck == 1
    collectives.corrupt(site, "unset")
    assert ask(group).isnan().any()
    collectives.corrupt(None)
    assert ask(group).tolist() == right


def test_a_sum_that_a_norm_completes_is_wrong_before_it(toy):
    _, fusion, collectives = toy

    def ask():
        given = {"input_tensor": torch.tensor(MINE), "residual": torch.zeros(2)}
        return getattr(fusion, NORM)(**given)[0].tolist()

    assert ask() == [11.0, 22.0]
    (site,) = collectives.seen
    assert site.function == "all_reduce with norm"
    assert groups.corrupt.elsewhere(site.words(), [(0, 1)], {"tp:0": [(0, 1)]}) == []
    collectives.corrupt(site, "doubled")
    assert ask() == [12.0, 24.0]
    collectives.corrupt(None)
    assert ask() == [11.0, 22.0]


def test_whole_numbers_and_groups_of_one_are_left_alone(toy):
    group, _, collectives = toy
    group._all_reduce_out_place(torch.tensor([1, 2]), "ca")
    type(group).world_size = 1
    in_place(group)
    assert not collectives.seen
