"""Collectives made wrong one at a time, on two ranks over gloo."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
from verify.engines.sglang.serving.inside import corrupt

SAMPLES = Path(__file__).parent / "samples"
ROOT = Path(__file__).parents[4]
RIGHT = [[11.0, 22.0], [1.0, 2.0, 10.0, 20.0]]
MINE = ([1.0, 2.0], [10.0, 20.0])
PARTS = ([11.0], [22.0])

pytestmark = pytest.mark.ranks


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    meeting = tmp_path_factory.mktemp("corrupt") / "meeting"
    script = [sys.executable, str(SAMPLES / "corrupting.py")]
    ranks = [
        subprocess.Popen(
            [*script, str(rank), str(meeting), str(SAMPLES / "parts")],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
        )
        for rank in range(2)
    ]
    try:
        return [json.loads(rank.communicate(timeout=120)[0].splitlines()[-1]) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()


PAIRS, CROSS, ALL = [(0, 1)] * 2 + [(2, 3)] * 2, [(0, 2), (1, 3)] * 2, [(0, 1, 2, 3)] * 4
ALONE = [(0,), (1,), (2,), (3,)]
GROUPS = {"attn_tp:0": PAIRS, "moe_tp:0": PAIRS, "moe_ep:0": CROSS, "tp:0": ALL, "pp:0": ALONE}


@pytest.mark.parametrize(
    ("function", "size", "own", "names"),
    [
        ("all_reduce", 2, PAIRS, ["moe_ep:0", "tp:0"]),
        ("all_reduce", 4, ALL, ["attn_tp:0", "moe_ep:0"]),
        ("all_gather", 2, PAIRS, ["moe_ep:0"]),
        ("all_gather", 4, ALL, []),
    ],
)
def test_another_group_has_other_ranks_and_a_shape_that_fits(function, size, own, names):
    words = ["srt/models/toy.py:8", "", function, size]
    assert corrupt.elsewhere(words, own, GROUPS) == names


def test_a_site_is_the_caller_of_the_plumbing_and_sizes_are_none(said):
    assert [[words[0], *words[2:]] for words in said[0]["sites"]] == [
        ["srt/models/toy.py:8", "all_reduce", 2],
        ["srt/models/toy.py:9", "all_gather_into_tensor", 2],
        ["srt/models/toy.py:9", "reduce_scatter_tensor", 2],
    ]


@pytest.mark.parametrize("when", ["silent", "right", "again"])
def test_without_a_corruption_nothing_changes(said, when):
    for rank in range(2):
        assert said[rank][when] == [*RIGHT, PARTS[rank]]


@pytest.mark.parametrize(
    ("what", "place", "wrong"),
    [
        ("all_reduce doubled", 0, ([22.0, 44.0], [22.0, 44.0])),
        ("all_reduce dropped", 0, MINE),
        ("all_reduce over alone", 0, MINE),
        ("all_gather_into_tensor doubled", 1, ([1.0, 2.0] * 2, [1.0, 2.0] * 2)),
        ("all_gather_into_tensor dropped", 1, (MINE[0] * 2, MINE[1] * 2)),
        ("reduce_scatter_tensor doubled", 2, ([22.0], [44.0])),
        ("reduce_scatter_tensor dropped", 2, ([1.0], [20.0])),
    ],
)
def test_one_collective_is_wrong_and_the_others_are_right(said, what, place, wrong):
    for rank in range(2):
        expected = [*RIGHT, PARTS[rank]]
        expected[place] = wrong[rank]
        assert said[rank][what] == [expected, 1]


@pytest.mark.parametrize(
    ("function", "place"),
    [("all_reduce", 0), ("all_gather_into_tensor", 1), ("reduce_scatter_tensor", 2)],
)
def test_unset_leaves_no_number(said, function, place):
    values, _ = said[1][f"{function} unset"]
    assert all(math.isnan(value) for value in values[place])
    assert not any(math.isnan(value) for value in values[(place + 1) % 3])
