"""Ranks that started once serve every layer of their deployment."""

import pytest

from verify.replay.case import Source
from verify.replay.deployments import ONE_RANK, executable
from verify.replay.tree import SourceFiles
from verify.source import open_source


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
