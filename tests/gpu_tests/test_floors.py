"""The floor of a measured step: from a run that is made up, and held to the runs in the results."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_tests.cases import Kernels
from gpu_tests.floors import Floors, steps_of
from gpu_tests.timing import COLLECTIVES, ROWS, Bandwidth, Choice, Floor, Share

RESULTS = Path(__file__).parents[2] / "docs/results"
TORCH = Kernels(experts="torch", norm="torch")
FUSED = Kernels(experts="torch", norm="flashinfer")
# replays of one step in one run differ by this much where nothing is wrong
NOISE = 1.1


def choice(row, *, tokens=8, kernels=TORCH):
    return Choice(row=row, tokens=tokens, hidden=64, dtype="bfloat16", kernels=kernels)


def run(times, *, ranks=4):
    """Floors of a run in which each step's empty call took `times[step]`, at 100 bytes a us."""
    floors = []
    for step, latency in times.items():
        rounds = 1 if step in ("all-gather", "reduce-scatter") else 2
        size = rounds * (ranks - 1) / ranks * 1000 * 64 * 2
        item = Floor(step=step, rows=1000, hidden=64, dtype="bfloat16")
        floors.append((item, {"empty": latency, "large": size / 100}))
    return Floors.measured(floors, ranks)


TIMES = {"all-reduce": 9.0, "all-gather": 7.0, "reduce-scatter": 8.0, "fused norm": 5.0}


@pytest.mark.parametrize(
    ("row", "kernels", "floor"),
    [
        ("0000", TORCH, 9.0),
        ("0001", TORCH, 15.0),
        ("0010", TORCH, 8.0),
        ("0100", TORCH, 8.0),
        ("1000", TORCH, 9.0),
        ("1000", FUSED, 5.0),
    ],
)
def test_few_bytes_cost_the_latency_of_their_own_step(row, kernels, floor):
    # 8 rows of 64 numbers of two bytes are 1024 bytes: 15 us at most, were the link the bound
    floors = run({step: time + 20 for step, time in TIMES.items()})
    item = choice(row, kernels=kernels)
    assert floors.of(item, {}) == pytest.approx(floor + 20 * len(steps_of(item, 4)))


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_many_bytes_cost_the_link(collective):
    item = Bandwidth(collective=collective, tokens=4000, hidden=64, dtype="bfloat16")
    rounds = 2 if collective == "all-reduce" else 1
    assert run(TIMES).of(item, {}) == pytest.approx(rounds * 0.75 * 4000 * 64 * 2 / 100)


def test_a_fused_norm_without_room_is_torch_and_an_all_reduce():
    assert steps_of(choice("1000", tokens=2048, kernels=FUSED), 4) == ("fused norm",)
    assert steps_of(choice("1000", tokens=2049, kernels=FUSED), 4) == ("all-reduce",)
    assert steps_of(choice("1000", kernels=FUSED), 1) == ("all-reduce",)


def test_a_wider_norm_has_a_latency_of_its_own():
    floors = Floors(latency={("fused norm", 64): 5.0, ("fused norm", 128): 7.0}, rate=1e9, ranks=4)
    wide = Choice(row="1000", tokens=8, hidden=128, dtype="bfloat16", kernels=FUSED)
    assert floors.of(choice("1000", kernels=FUSED), {}) == 5.0
    assert floors.of(wide, {}) == 7.0


def test_a_layer_is_its_experts_and_two_sums():
    item = Share(model="m", tokens=1, hidden=64, intermediate=32, dtype="bfloat16", kernels=TORCH)
    assert run(TIMES).of(item, {"experts": 11.0}) == pytest.approx(11.0 + 2 * 9.0)


@given(st.sampled_from(ROWS), st.integers(1, 10_000), st.integers(2, 8))
def test_a_floor_grows_with_tokens_and_is_never_below_one_latency(row, tokens, ranks):
    floors = run(TIMES, ranks=ranks)
    fewer, more = (floors.of(choice(row, tokens=n), {}) for n in (tokens, 2 * tokens))
    assert min(TIMES.values()) <= fewer <= more


def below(report):
    """The measurements of a run that were faster than their floor."""
    taken = {"choice": "skip", "bandwidth": "bare", "share": "layer"}
    measured = [each for each in report["measurements"] if each["kind"] in taken]
    assert all(each["floor"] > 0 for each in measured)

    def took(each):
        times = each["microseconds"]
        # in row 0000 nobody sums but the block: what is right there is `double`
        return times[taken[each["kind"]]] if taken[each["kind"]] in times else times["double"]

    return [each for each in measured if took(each) * NOISE < each["floor"]]


REPORTS = sorted(RESULTS.glob("measure-*-x[248]-*.json"))


def test_there_are_runs_on_several_gpus():
    assert REPORTS


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_nothing_was_faster_than_its_floor(path):
    assert below(json.loads(path.read_text())) == []


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_a_floor_that_is_too_high_is_seen(path):
    report = json.loads(path.read_text())
    for each in report["measurements"]:
        each["floor"] = each["floor"] and 10 * each["floor"]
    assert below(report)
