"""All models of one release in one start, against starting one model's ranks."""

import time

import pytest

from verify.checks.replay.decoders import Models
from verify.checks.replay.deployments import executable
from verify.checks.replay.processes import Case, Child
from verify.emulator.tree import SourceFiles
from verify.engines.sources import fetch, open_source

pytestmark = [pytest.mark.bench, pytest.mark.network, pytest.mark.slow]


def test_every_model_of_a_release_in_one_start(capsys):
    location = str(fetch("sglang==0.5.11"))
    with open_source(location, below="") as tree:
        models = Models(SourceFiles(tree))
        deployment = next(d for d in executable(4) if d.config.ep_size == 4)
        cases = [
            Case(decoder=decoder, deployment=deployment)
            for name in models.names
            for decoder in models.decoders(name)
        ]
    with Child(location) as child:
        started = time.perf_counter()
        child.run(cases[0])
        start_up = time.perf_counter() - started
        started = time.perf_counter()
        kinds = [child.run(case)["kind"] for case in cases]
        took = time.perf_counter() - started
    ratio = took / start_up
    with capsys.disabled():
        print(
            f"\nreplay: {len(cases)} layers in {took:.1f} s, {len(cases) / took:.1f} cases/s, "
            f"{ratio:.1f}x of starting one model's ranks ({start_up:.1f} s)"
        )
    assert kinds.count("exact") > len(kinds) / 2
