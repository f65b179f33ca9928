"""Collectives of a toy communicator, right and wrong in each way."""

import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from verify.engines.inside.modules import Running  # noqa: E402
from verify.engines.vllm.serving.inside import corrupt  # noqa: E402

OTHER = [10.0, 20.0, 30.0]
MINE = [1.0, 2.0, 3.0]


def made(rank):
    class Toy:
        """This rank has `MINE`, the other one `OTHER`; one row and two of what is scattered."""

        world_size, rank_in_group, ranks = 2, rank, (0, 1)

        def all_reduce(self, given):
            return given.add_(torch.tensor(OTHER))

        def all_gatherv(self, given, dim=0, sizes=None):
            if isinstance(given, list):
                return [self.all_gatherv(each, dim, sizes) for each in given]
            parts = [given, torch.tensor(OTHER)[: sizes[1 - rank]].to(given.dtype)]
            return torch.cat(parts if rank == 0 else parts[::-1])

        def all_gather(self, given, dim=-1):
            return self.all_gatherv(given, 0, [3, 3])

        def reduce_scatterv(self, given, dim=-1, sizes=None):
            start = sum(sizes[:rank])
            return (given + torch.tensor(OTHER))[start : start + sizes[rank]].clone()

        def reduce_scatter(self, given, dim=-1):
            raise AssertionError("not asked for")

        def isend_tensor_dict(self, tensors, dst=None):
            return tensors["hidden_states"]

    return Toy


def spoiled(name, how, *rest, rank=0, given=MINE):
    toy = made(rank)
    root = Path(__file__).parent
    collectives = corrupt.Collectives(running=Running(), root=root, active=True)
    collectives.install(toy, toy)

    def ask(given):
        return getattr(toy(), name)(torch.tensor(given), *rest).tolist()

    right = ask(given)
    (site,) = collectives.seen
    collectives.corrupt(site, how)
    wrong = ask(given)
    assert collectives.struck == 1
    collectives.corrupt(None)
    assert ask(given) == right
    return right, wrong


def test_a_sum_is_doubled_or_left_out():
    right = [11.0, 22.0, 33.0]
    assert spoiled("all_reduce", "doubled") == (right, [22.0, 44.0, 66.0])
    assert spoiled("all_reduce", "dropped") == (right, MINE)


def test_of_what_is_scattered_a_rank_keeps_its_own_part():
    sizes = [1, 2]
    assert spoiled("reduce_scatterv", "dropped", 0, sizes) == ([11.0], [1.0])
    assert spoiled("reduce_scatterv", "dropped", 0, sizes, rank=1) == ([22.0, 33.0], [2.0, 3.0])
    assert spoiled("reduce_scatterv", "doubled", 0, sizes)[1] == [22.0]


def test_of_what_is_gathered_another_ranks_part_is_missing_or_the_first_ones():
    right = [*MINE, *OTHER]
    assert spoiled("all_gather", "dropped") == (right, [*MINE, 0.0, 0.0, 0.0])
    assert spoiled("all_gather", "doubled") == (right, [*MINE, *MINE])
    uneven = spoiled("all_gatherv", "doubled", 0, [3, 2])
    assert uneven == ([*MINE, 10.0, 20.0], [*MINE, 1.0, 2.0])


def test_not_a_number_goes_where_the_answer_was():
    _, wrong = spoiled("all_reduce", "unset")
    assert all(math.isnan(value) for value in wrong)


def test_a_site_is_where_it_is_asked_for_and_whole_numbers_are_none():
    toy = made(0)
    collectives = corrupt.Collectives(running=Running(), root=Path(__file__).parent, active=True)
    collectives.install(toy, toy)
    numbers, values = toy().all_gatherv([torch.tensor([1, 2]), torch.tensor(MINE)], 0, [2, 2])
    assert (numbers.tolist(), len(values)) == ([1, 2, 10, 20], 5)
    ((place, module, function, ranks),) = collectives.seen
    assert place.startswith("test_corrupt.py:")
    assert (module, function, ranks) == ("", "all_gatherv", 2)


def test_what_a_stage_hands_on_is_doubled_or_nothing():
    toy = made(0)
    collectives = corrupt.Collectives(running=Running(), root=Path(__file__).parent, active=True)
    collectives.install(toy, toy)
    given = {"hidden_states": torch.tensor(MINE)}

    def hand_on():
        return toy().isend_tensor_dict(given).tolist()

    assert hand_on() == MINE
    (site,) = collectives.seen
    assert site[2:] == ("isend_tensor_dict", 2)
    said = {}
    for how in ("doubled", "dropped", "unset"):
        collectives.corrupt(site, how)
        said[how] = hand_on()
    assert said["doubled"] == [2.0, 4.0, 6.0]
    assert said["dropped"] == [0.0, 0.0, 0.0]
    assert all(math.isnan(value) for value in said["unset"])
    assert given["hidden_states"].tolist() == MINE


def site(function, size=2):
    return ("file.py:1", "model", function, size)


def test_a_sum_may_go_over_any_other_ranks_and_what_is_gathered_over_as_many():
    own = [(0, 1), (0, 1), (2, 3), (2, 3)]
    across = [(0, 2), (1, 3), (0, 2), (1, 3)]
    groups = {
        "tp:0": own,
        "dp:0": across,
        "ep:0": [(0, 1, 2, 3)] * 4,
        "dp:1": across,
        "pp:0": [(rank,) for rank in range(4)],
    }
    assert corrupt.elsewhere(site("all_reduce"), own, groups) == ["dp:0", "ep:0"]
    assert corrupt.elsewhere(site("all_gather"), own, groups) == ["dp:0"]
    assert corrupt.elsewhere(site("all_gatherv"), own, groups) == []
    assert corrupt.elsewhere(site("isend_tensor_dict"), own, groups) == []
    # only one stage asks
    assert corrupt.elsewhere(site("all_reduce"), [(0, 1), (0, 1), (), ()], groups) == []


def over(name, *rest, rows, others, monkeypatch):
    """`rows` of this rank with the longest of another group's, which answers with `others`."""

    class Other:
        world_size, cpu_group = 2, None

    def longest(count, operation, group):
        count.fill_(max(int(count), len(others)))

    def original(group, given, *rest):
        more = torch.zeros_like(given)
        more[: len(others)] = torch.tensor(others)
        if name == "all_reduce":
            return given + more
        if name == "all_gather":
            return torch.cat([given, more], rest[0])
        return (given + more).chunk(2)[0]

    monkeypatch.setattr(corrupt.dist, "all_reduce", longest)
    return corrupt._over(Other(), name, original, torch.tensor(rows), list(rest)).tolist()


def test_over_other_ranks_each_keeps_as_many_rows_as_it_has(monkeypatch):
    more = {"rows": [[1.0], [2.0]], "others": [[10.0], [20.0], [30.0]], "monkeypatch": monkeypatch}
    fewer = {**more, "others": [[10.0]]}
    assert over("all_reduce", **more) == [[11.0], [22.0]]
    assert over("all_reduce", **fewer) == [[11.0], [2.0]]
    assert over("all_gather", 0, **more) == [[1.0], [2.0], [10.0], [20.0]]
    assert over("all_gather", 1, **fewer) == [[1.0, 10.0], [2.0, 0.0]]
    assert over("reduce_scatter", 0, **more) == [[11.0]]
