"""Ranks that started once serve every layer of their deployment."""

from dataclasses import replace

import pytest

from helper import MoeConfig
from verify.checks.replay import case
from verify.checks.replay.case import Source, run_case
from verify.checks.replay.decoders import Models
from verify.checks.replay.deployments import ONE_RANK, Execution, executable, row_of
from verify.emulator.ranks import RanksError
from verify.emulator.tree import SourceFiles
from verify.engines.sources import open_source

SEEN = ("kind", "counts", "max_error", "why", "producers", "published")


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


def test_a_layer_is_built_once_for_all_batches_of_a_server(source, monkeypatch):
    built = []

    def build(*arguments, actual=case.stack.build):
        built.append(1)
        return actual(*arguments)

    monkeypatch.setattr(case.stack, "build", build)
    models = Models(source.files)
    decoder = next(d for name in models.names for d in models.decoders(name) if d.boundary)
    groups = by_server(executable(2))
    alike = max(groups.values(), key=len)
    counted = []
    for deployment in (*alike, next(d for d in groups if d != alike[0].server)):
        built.clear()
        out = run_case(source, decoder, deployment)
        counted.append((len(built), out["kind"]))
        alone = run_case(Source(files=source.files), decoder, deployment)
        assert [out[key] for key in SEEN] == [alone[key] for key in SEEN]
    assert counted == [
        (4, "exact"),  # the attempt and the reference on one rank, then two ranks
        (0, "exact"),
        (0, "crash"),  # the small server gathers no uneven tokens
        (2, "crash"),  # ranks of a crash are not kept
        (2, "exact"),  # another server
    ]


def test_only_batches_share_a_server():
    groups = by_server(executable(4))
    assert sum(map(len, groups.values())) > len(groups)
    for server, members in groups.items():
        for member in members:
            assert replace(member, padding=server.padding, tokens=server.tokens) == server


def by_server(deployments):
    groups = {}
    for deployment in deployments:
        groups.setdefault(deployment.server, []).append(deployment)
    return groups


ANSWERS = "\n    def should_use_reduce_scatter(self, forward_batch):\n        return {}\n"


@pytest.mark.parametrize(
    ("answer", "rows"),
    [
        ("self.will_reduce_scatter(forward_batch)", {"max_len": True, "sum_len": False}),
        ("not self.will_reduce_scatter(forward_batch)", {"max_len": False, "sum_len": True}),
    ],
)
def test_what_a_layer_is_told_is_asked_of_the_releases_own_communicator(altered, answer, rows):
    """Answered wrongly, it is reported wrongly: nothing but the source decides."""
    head = "class LayerCommunicator:"
    root = altered("layers/communicator.py", head, head + ANSWERS.format(answer))
    source = Source(files=SourceFiles(open_source(str(root), below="")))
    models = Models(source.files)
    (decoder, *_) = models.decoders(models.names[0])
    scattering = Execution(config=MoeConfig(tp_size=2, attn_dp_size=2, enable_dp_attention=True))
    for padding, told in rows.items():
        out = run_case(source, decoder, replace(scattering, padding=padding))
        assert out["published"] == {"DP": False, "FI": False, "AF": False, "RS": told}
        assert row_of(scattering, out["published"])[1] == str(int(told))
