"""The ranks job against its floor: starting the ranks, the same collectives and arithmetic.

Over NCCL where this machine has a GPU for each rank, otherwise over gloo.
"""

import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import torch

from gpu_tests.job import on_this_machine
from gpu_tests.plan import cases
from gpu_tests.pool import rank_pool

pytestmark = [
    pytest.mark.bench,
    pytest.mark.ranks,
    pytest.mark.timeout(1800),
]

ROUNDS = 3


@pytest.fixture
def floor(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield import_module("floor")
    sys.modules.pop("floor")


@pytest.mark.parametrize("world_size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_whole_job_against_its_floor(floor, capsys, world_size):
    todo = list(cases(world_size=world_size, dtypes=("float32", "bfloat16")))
    # the job runs cases that are alike once: so does its floor
    alike = {case.alike: case for case in reversed(todo)}
    ran = [case for case in todo if alike[case.alike] is case]
    titles = [case.title for case in ran]
    backend = "nccl" if torch.cuda.device_count() >= world_size else "gloo"

    def every(work, items):
        begun = time.monotonic()
        with rank_pool(work, world_size=world_size, backend=backend, deadline=60.0) as pool:
            answers = [ranks for _, ranks in pool.run(items, titles=titles)]
        return time.monotonic() - begun, answers

    _, calls = every(floor.record, ran)
    alone, whole = [], []
    for _ in range(ROUNDS):
        alone.append(every(floor.replay, list(zip(ran, calls, strict=True)))[0])
        begun = time.monotonic()
        outcomes = list(
            on_this_machine(todo, world_size=world_size, backend=backend, deadline=60.0)
        )
        whole.append(time.monotonic() - begun)
    assert len(outcomes) == len(todo)
    ratio = min(whole) / min(alone)
    with capsys.disabled():
        print(
            f"\nbench: {world_size} {backend} ranks, {len(todo)} cases, {len(ran)} run: "
            f"{min(whole):.1f} s, "
            f"{len(todo) / min(whole):.0f} cases a second, {ratio:.2f} times the floor of "
            f"{min(alone):.1f} s; reach 2"
        )
