"""Ranks that started once serve every layer of their deployment."""

import pytest

from verify.checks.replay import case
from verify.checks.replay.case import Source, run_case
from verify.checks.replay.decoders import Models
from verify.checks.replay.deployments import ONE_RANK, executable
from verify.emulator.ranks import RanksError
from verify.emulator.tree import SourceFiles
from verify.engines.sources import open_source


@pytest.fixture
def source(small_server):
    return Source(files=SourceFiles(open_source(str(small_server), below="")))


def test_a_reference_on_one_rank_does_not_end_the_other_ranks(source):
    deployment = next(executable(2))
    source.servers = {ONE_RANK: {0: ("witness", "tree")}, deployment: {1: ("witness", "tree")}}
    assert list(source.take_servers(ONE_RANK)) == [0]
    assert list(source.take_servers(deployment)) == [1]


def test_another_deployment_ends_the_ranks_of_the_last(source):
    last, new, *_ = executable(2)
    source.servers = {ONE_RANK: {0: ("witness", "tree")}, last: {1: ("witness", "tree")}}
    assert source.take_servers(new) == {}
    assert set(source.servers) == {ONE_RANK}


def test_what_cannot_run_on_one_rank_is_tried_once(source, monkeypatch):
    tries = []

    def fail(*_):
        tries.append(1)
        raise RanksError("crash", "rank 0: ValueError: no")

    monkeypatch.setattr(case, "_learn", fail)
    models = Models(source.files)
    (decoder, *_) = models.decoders(models.names[0])
    first, second, *_ = executable(2)
    outs = [run_case(source, decoder, deployment) for deployment in (first, second)]
    assert [out["kind"] for out in outs] == ["crash", "crash"]
    assert outs[0]["why"] == outs[1]["why"] == "rank 0: ValueError: no"
    assert len(tries) == 1
