"""What a person reads: every cause in one sentence, pinned and looked at once."""

from dataclasses import replace

import pytest

from helper import MoeConfig
from verify.checks.prove.findings import READERS, in_words, stories
from verify.checks.prove.judge import judge
from verify.checks.prove.lattice import prove
from verify.checks.prove.subject import Subject, dense_subject, helper_guards
from verify.engines.sglang.layer import RELEASE_0_5_11, applies
from verify.parallel.deployment import layers
from verify.parallel.guards import Guards
from verify.report.rules import RULES


@pytest.fixture(scope="module")
def told():
    subjects = (
        Subject(name="one", guards=helper_guards("one-site")),
        Subject(name="two", guards=helper_guards("two-site")),
        dense_subject(),
    )
    tally = prove(subjects, max_world_size=4)
    return stories(tuple(tally.faults.values()), subjects, RELEASE_0_5_11)


SENTENCES = {
    "fusion with EP and MoE-TP": (
        "tp=4 ep=2 fusion=flashinfer: the block reduces nothing, the next layer's fused norm sums "
        "over EP only; each rank lacks 2 of 4 partial sums"
    ),
    "a declined kernel": (
        "tp=2 fusion=flashinfer-declined: the block reduces nothing, the fused kernel declines "
        "the tensor and the norm runs without a sum; each rank lacks 1 of 2 partial sums"
    ),
    "a pipeline stage's end": (
        "tp=2 fusion=flashinfer position=stage-end: the block reduces nothing, the tag that asks "
        "the next layer to sum is lost on the way to the next stage; each rank lacks 1 of 2 "
        "partial sums"
    ),
    "no fused norm": (
        "tp=2 ep=2 fusion=no-fused-norm: the block reduces nothing, prepare_attn cannot fuse and "
        "sums over MoE-TP only; each rank lacks 1 of 2 partial sums"
    ),
    "EP after combine": (
        "tp=2 ep=2 dp=2 moe_runner_backend=flashinfer_cutlass quantization=modelopt_fp4"
        ": the dispatcher's combine has completed the sum, the block "
        "reduces over EP, no later step sums; tensors of different tokens are added to each other"
    ),
    "copies of the experts": (
        "tp=2 moe_dp=2 cp=2: the block reduces over the TP group, which holds several copies of "
        "the experts, no later step sums; partial sums are counted 2 times"
    ),
    "sizes that do not fit": (
        "tp=4 ep=2 dp=2: the block reduces nothing, "
        "LayerCommunicator sums by reduce_scatterv over the TP group; it stops: a list of 2 sizes "
        "for a group of 4 ranks"
    ),
    "a dense layer under DP": (
        "tp=2 ep=2 dp=2 allow_reduce_scatter=False: the dense MLP "
        "reduces over the TP group, LayerCommunicator sums by reduce_scatterv over the TP group; "
        "partial sums are counted 2 times"
    ),
    "a sharded shared expert under FI": (
        "tp=2 ep=2 dp=2 moe_runner_backend=flashinfer_cutlass quantization=modelopt_fp4 "
        "shared=sharded: the dispatcher's combine has completed the "
        "sum, the block reduces nothing, no later step sums; each rank lacks 1 of 2 shared "
        "expert's parts"
    ),
}


@pytest.mark.parametrize("sentence", SENTENCES.values(), ids=SENTENCES)
def test_sentences(told, sentence):
    assert sentence in {story.finding.message for story in told}


def test_a_cause_is_told_once_with_its_smallest_deployment_and_everyone_who_has_it(told):
    messages = [story.finding.message for story in told]
    assert len(messages) == len(set(messages))
    declined = next(
        story for story in told if story.finding.message == SENTENCES["a declined kernel"]
    )
    assert declined.subjects == ("one", "two")
    assert declined.finding.subject == "one, two"
    assert declined.finding.counts == ((1, 0), (0, 1))


def test_whose_doing_it_is(told):
    whose = {
        name: next(story.own_doing for story in told if story.finding.message == sentence)
        for name, sentence in SENTENCES.items()
    }
    assert {name for name, own in whose.items() if own} == {
        "EP after combine",
        "copies of the experts",
        "a dense layer under DP",
    }


def test_findings_can_be_told_apart_by_a_baseline(told):
    keys = [
        (story.finding.kind, story.finding.subject, story.finding.row, in_words(story.deployment))
        for story in told
    ]
    assert len(keys) == len(set(keys))


def test_every_rule_has_its_help(told):
    assert {story.finding.rule for story in told} <= set(RULES)
    assert all(reader.said and reader.repair for reader in READERS.values())
    assert all(story.finding.fix for story in told)


def test_a_release_that_refuses_hybrid_fusion_has_no_such_finding(refuses_hybrid):
    subjects = (Subject(name="one", guards=helper_guards("one-site")),)
    tally = prove(subjects, max_world_size=4, release=refuses_hybrid)
    told = stories(tuple(tally.faults.values()), subjects, refuses_hybrid)
    assert not any(
        "sums over EP only" in s.finding.message
        for s in told
        if s.deployment.config.moe_a2a_backend == "none"
    )


def behind(*backends, skips_fp4=True):
    """A block that sums over the TP group behind the combine of these all-to-all backends."""
    skip = 0xAAAA if skips_fp4 else 0  # rows with FI
    return Guards(producer="one-site", skip_tp=skip, shared_experts="none", reached_by=backends)


def test_two_combines_are_two_causes():
    subjects = (
        Subject(name="all-to-all", guards=behind("mori")),
        Subject(name="fp4", guards=behind(skips_fp4=False)),
    )
    tally = prove(subjects, max_world_size=2)
    told = stories(tuple(tally.faults.values()), subjects, RELEASE_0_5_11)
    combined = [s for s in told if s.fault.cause.sites and s.verdict.kind != "missing"]
    named = {s.subjects for s in combined if "combine has completed" in s.finding.message}
    assert named == {("all-to-all",), ("fp4",)}
    shown = {s.deployment.config.moe_a2a_backend for s in combined if s.subjects == ("all-to-all",)}
    assert shown == {"mori"}


def test_the_backend_shown_is_the_one_most_blocks_do_not_know():
    subjects = (
        Subject(name="a", guards=behind("deepep")),
        Subject(name="b", guards=behind("nixl", "mori")),
        Subject(name="c", guards=behind("mori", skips_fp4=False)),
    )
    tally = prove(subjects, max_world_size=2)
    told = stories(tuple(tally.faults.values()), subjects, RELEASE_0_5_11)
    shown = [s for s in told if "all-to-all combine" in s.finding.message and len(s.subjects) == 3]
    assert shown
    for story in shown:
        assert story.deployment.config.moe_a2a_backend == "mori"
        assert story.finding.message.endswith("; blocks that know mori have it with deepep")
        assert judge(story.deployment, story.fault.guards).kind == story.verdict.kind


@pytest.mark.parametrize("on_rocm", [True, False])
def test_what_only_rocm_fuses_is_not_beside_flashinfer(on_rocm):
    guards = replace(behind(), shared_experts="any", fuses_on_rocm=on_rocm)
    config = MoeConfig(tp_size=2, ep_size=2)
    layer = next(each for each in layers(config) if each.shared == "fused")
    for fusion, there in (("flashinfer", not on_rocm), ("aiter", True), ("off", True)):
        assert applies(replace(layer, fusion=fusion), guards) is there
