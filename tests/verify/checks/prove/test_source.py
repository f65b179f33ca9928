"""A release's own guards and steps, read from sources written for the purpose."""

import shutil
import textwrap
from dataclasses import replace

import pytest

from helper import MoeConfig
from verify.checks.prove.judge import judge
from verify.checks.prove.lattice import prove
from verify.checks.prove.source import read, read_release
from verify.checks.prove.subject import Subject, helper_guards
from verify.engines.sglang.vocabulary import COMMUNICATOR_FILE
from verify.engines.sources import open_source
from verify.errors import VerifyError
from verify.parallel.deployment import Deployment, layouts

COMMUNICATOR = """
class LayerCommunicator:
    def should_fuse_mlp_allreduce_with_next_layer(self, batch):
        if waiting_for_something():
            return False
        {refusal}
        return True

    def prepare_attn(self, hidden_states, residual):
        if can_fuse():
            return self.norm.forward_with_allreduce_fusion(hidden_states, residual)
        {unfused}
        return self.norm(hidden_states, residual)
"""
NORM = """
class RMSNorm:
    def forward_with_allreduce_fusion(self, x, residual):
        if {size} > 1:
            return fused(x, residual)
        return self.forward(x, residual)
"""
REFUSAL = """
        if sizes().moe_ep_size > 1 and sizes().moe_tp_size > 1:
            return False
"""


@pytest.fixture
def source(tmp_path, mini_sglang):
    """The sample source with another communicator and norm."""

    def make(*, refusal="pass", unfused="pass", size="tp_size()"):
        shutil.rmtree(tmp_path / "sglang", ignore_errors=True)
        shutil.copytree(mini_sglang / "sglang", tmp_path / "sglang")
        layers = tmp_path / "sglang/srt/layers"
        old = (layers / "communicator.py").read_text()
        new = textwrap.dedent(COMMUNICATOR).format(refusal=refusal, unfused=unfused)
        (layers / "communicator.py").write_text(new + old.partition("\n\n\n")[0])
        (layers / "layernorm.py").write_text(NORM.format(size=size))
        return tmp_path

    return make


def release_of(path):
    with open_source(str(path)) as tree:
        return read_release(tree)


def test_over_which_group_the_fused_norm_sums(source):
    assert release_of(source()).fused_group == "tp"
    of_ep = source(size="get_moe_expert_parallel_world_size()")
    assert release_of(of_ep).fused_group == "ep-or-moe-tp"
    assert release_of(source(size="sizes().moe_ep_size")).fused_group == "ep-or-moe-tp"


def test_over_which_group_prepare_attn_sums_when_it_cannot_fuse(source):
    assert release_of(source()).unfused_group == "none"
    call = "hidden_states = {}(hidden_states)"
    moe_tp = call.format("moe_tensor_model_parallel_all_reduce")
    assert release_of(source(unfused=moe_tp)).unfused_group == "moe_tp"
    tp = call.format("tensor_model_parallel_all_reduce")
    assert release_of(source(unfused=tp)).unfused_group == "tp"


def test_whether_fusion_is_refused_with_expert_and_tensor_parallelism(source):
    assert release_of(source()).fuses_hybrid
    assert not release_of(source(refusal=REFUSAL.strip())).fuses_hybrid
    other = "if sizes().moe_ep_size > 1:\n            return False"
    assert release_of(source(refusal=other)).fuses_hybrid, "a refusal for another reason"


def test_whether_fusion_is_refused_under_attention_data_parallelism(source):
    assert release_of(source()).fuses_under_attention_dp
    refused = "if not (not is_dp_attention_enabled()):\n            return False"
    assert not release_of(source(refusal=refused)).fuses_under_attention_dp
    asked = "if is_dp_attention_enabled() and drafts():\n            return False"
    assert release_of(source(refusal=asked)).fuses_under_attention_dp, "of drafts only"


def scatterv_at(path, definition):
    """Where 4 ranks' reduce_scatterv is chosen by `definition`: (attn_dp_size, ep_size)."""
    utils = path / "sglang/srt/layers/moe/utils.py"
    utils.write_text(
        "def should_use_dp_reduce_scatterv():\n    return " + definition + "\n", encoding="utf-8"
    )
    communicator = path / COMMUNICATOR_FILE
    asking = "\n\ndef scatters():\n    return should_use_dp_reduce_scatterv()\n"
    communicator.write_text(communicator.read_text() + asking)
    release = release_of(path)
    return {
        (config.attn_dp_size, config.ep_size)
        for config in layouts(4)
        if release.sums_by_scatterv(config)
    }


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ("", {(2, 2), (4, 4)}),
        (" and get_attention_dp_size() == get_tensor_model_parallel_world_size()", {(4, 4)}),
        (" and not is_dp_attention_enabled()", set()),
    ],
)
def test_the_dp_flag_is_the_source_s_own(source, more, where):
    definition = (
        "is_dp_attention_enabled() and get_attention_dp_size() > 1 "
        "and get_attention_dp_size() == get_moe_expert_parallel_world_size()"
    )
    assert scatterv_at(source(), definition + more) == where


def test_a_dp_flag_that_no_deployment_answers_is_the_helpers_and_said_so(source):
    assert scatterv_at(source(), "is_monday() and get_attention_dp_size() > 1") == {(2, 2), (4, 4)}
    with open_source(str(source())) as tree:
        text = "the source's own DP flag, it depends on is_monday()"
        assert text not in read(tree).left_out
    scatterv_at(path := source(), "is_monday()")
    with open_source(str(path)) as tree:
        assert text in read(tree).left_out


def test_a_dp_flag_that_cannot_be_followed_is_said_so(source):
    without_end = "loop()\n\n\ndef loop():\n    return loop()"
    path = source()
    assert scatterv_at(path, without_end) == {(2, 2), (4, 4)}, "the helper's"
    with open_source(str(path)) as tree:
        left_out = read(tree).left_out
    assert "the source's own DP flag, it depends on should_use_dp_reduce_scatterv()" in left_out
    assert any(
        line.endswith("cannot be followed: calls nested deeper than 30") for line in left_out
    )


def test_sizes_that_the_server_does_not_take_are_not_judged(source):
    path = source()
    assert release_of(path).copies_experts, "no arguments to read: nothing is ruled out"
    arguments = path / "sglang/srt/server_args.py"
    arguments.write_text("tp_size = ep_size = attn_cp_size = 1")
    release = release_of(path)
    assert (release.copies_experts, release.splits_contexts) == (False, True)
    with_copies = MoeConfig(tp_size=2, moe_dp_size=2, attn_cp_size=2)
    assert not release.takes(with_copies)
    assert release.takes(MoeConfig(tp_size=2, attn_cp_size=2))
    subjects = (Subject(name="one", guards=helper_guards("one-site")),)
    everything = prove(subjects, max_world_size=2)
    # of the same fusions: this source says of none that attention data parallelism refuses it
    some = prove(
        subjects, max_world_size=2, release=replace(release, fuses_under_attention_dp=False)
    )
    assert some.deployments < everything.deployments
    assert all(fault.example.config.moe_dp_size == 1 for fault in some.faults.values())


def test_the_guard_that_does_not_know_dp_is_found(mini_sglang):
    with open_source(str(mini_sglang)) as tree:
        sourced = read(tree)
    assert [subject.name for subject in sourced.subjects] == [
        "cedar/CedarBlock.forward",
        "oak/OakBlock.forward",
    ]
    cedar, oak = sourced.subjects
    tally = prove(sourced.subjects, max_world_size=4, release=sourced.release)
    doubled = {fault.guards for fault in tally.faults.values() if fault.cause.kind == "double"}
    assert cedar.guards in doubled
    plain = [
        fault
        for fault in tally.faults.values()
        if fault.guards == oak.guards
        and fault.cause.kind == "double"
        and fault.example.config.moe_dp_size == 1
    ]
    assert not plain, "oak asks for every flag"


ASKS = "self.communicator.should_use_reduce_scatter(batch)"


@pytest.mark.parametrize(("scatter", "kind"), [(ASKS, "exact"), ("False", "double")])
def test_reduce_scatter_that_no_layer_asks_for_never_arrives(source, scatter, kind):
    path = source()
    oak = path / "sglang/srt/models/oak.py"
    text = oak.read_text()
    assert text.count(ASKS) == 1
    oak.write_text(text.replace(ASKS, scatter))
    with open_source(str(path)) as tree:
        sourced = read(tree)
    guards = next(s.guards for s in sourced.subjects if s.name == "oak/OakBlock.forward")
    padded = Deployment(config=MoeConfig(tp_size=2, attn_dp_size=2, enable_dp_attention=True))
    verdict = judge(padded, guards, release=sourced.release)
    assert (verdict.kind, verdict.row) == (kind, "0100")


def test_a_source_without_a_communicator_is_refused(tmp_path, mini_sglang):

    shutil.copytree(mini_sglang / "sglang", tmp_path / "sglang")
    (tmp_path / "sglang/srt/layers/communicator.py").unlink()
    with open_source(str(tmp_path)) as tree, pytest.raises(VerifyError, match="has no sglang/srt"):
        read(tree)


def test_a_broken_communicator_is_one_clear_line(source):
    path = source()
    (path / "sglang/srt/layers/communicator.py").write_text("class LayerCommunicator:\n  def (")
    with pytest.raises(VerifyError, match=r"layers/communicator\.py:2: not Python"):
        release_of(path)


@pytest.mark.network
@pytest.mark.parametrize(("version", "lost"), [("0.5.11", True), ("0.5.18", False)])
def test_32963_is_in_0_5_11_and_not_in_0_5_18(version, lost):
    with open_source(f"sglang=={version}") as tree:
        sourced = read(tree)
    assert len(sourced.subjects) > 15
    tally = prove(sourced.subjects, max_world_size=4, release=sourced.release)
    hybrid = [
        fault
        for fault in tally.faults.values()
        if fault.cause.kind == "missing"
        and fault.cause.reader == "fused norm"
        and fault.example.config.moe_dp_size == 1
    ]
    assert bool(hybrid) is lost
    assert all(fault.example.config.tp_size == 4 for fault in hybrid), "the smallest such world"


@pytest.mark.network
@pytest.mark.parametrize(
    ("version", "fuses"), [("0.5.3", True), ("0.5.4", True), ("0.5.4.post1", False)]
)
def test_11632_is_in_0_5_3_and_0_5_4(version, fuses):
    """The next norm adds the own group's residual to rows of all groups."""
    with open_source(f"sglang=={version}") as tree:
        sourced = read(tree)
    tally = prove(sourced.subjects, max_world_size=2, release=sourced.release)
    found = [
        fault
        for fault in tally.faults.values()
        if fault.cause.reader == "fused norm" and fault.example.config.enable_dp_attention
    ]
    assert bool(found) is fuses
    # where another group's rows happen to be as many, they are added to each other
    assert {fault.cause.kind for fault in found} <= {"crash", "mixed"}


@pytest.mark.network
@pytest.mark.parametrize(("version", "crashes"), [("0.5.16", True), ("0.5.17", False)])
def test_sizes_shorter_than_the_group_until_0_5_17(version, crashes):
    with open_source(f"sglang=={version}") as tree:
        release = read_release(tree)
    deployment = Deployment(
        config=MoeConfig(tp_size=4, ep_size=2, attn_dp_size=2, enable_dp_attention=True)
    )
    assert deployment.sums_by_scatterv
    assert release.sums_by_scatterv(deployment.config) is crashes
    guards = replace(helper_guards("two-site"), allows_reduce_scatter=False)
    assert (judge(deployment, guards, release=release).kind == "crash") is crashes


@pytest.mark.network
def test_23734_is_in_0_5_10(tmp_path):
    with open_source("sglang==0.5.10") as tree:
        sourced = read(tree)
    guards = next(s.guards for s in sourced.subjects if s.name.startswith("qwen3_moe/"))
    tally = prove(sourced.subjects, max_world_size=2, release=sourced.release)
    assert any(
        fault.guards == guards and fault.cause.sites == ("ep_all_reduce",)
        for fault in tally.faults.values()
        if fault.cause.reader == "dp_reduce_scatter" and fault.cause.kind == "double"
    )


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "reader", "last", "fixed"),
    [
        pytest.param("gpt_oss", "dp_reduce_scatterv", "0.5.19", "0.5.20", id="37199"),
        pytest.param("glm4_moe", "dp_reduce_scatter", "0.5.3.post3", "0.5.4", id="11665"),
    ],
)
def test_double_sums_until_they_were_fixed(model, reader, last, fixed):
    found = {}
    for version in (last, fixed):
        with open_source(f"sglang=={version}") as tree:
            sourced = read(tree)
        blocks = {s.guards for s in sourced.subjects if s.name.startswith(f"{model}/")}
        assert blocks
        tally = prove(sourced.subjects, max_world_size=2, release=sourced.release)
        found[version] = any(
            fault.guards in blocks and fault.cause.reader == reader and fault.cause.sites
            for fault in tally.faults.values()
            if fault.cause.kind == "double"
        )
    assert found == {last: True, fixed: False}
