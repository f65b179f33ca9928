"""A release's own guards and steps, read from sources written for the purpose."""

import shutil
from dataclasses import replace

import pytest

from helper import MoeConfig
from verify.checks.prove.judge import judge
from verify.checks.prove.lattice import prove
from verify.checks.prove.source import read, read_release
from verify.checks.prove.subject import Subject, helper_guards
from verify.engines.sglang.vocabulary import COMMUNICATOR_FILE, GATHERS_CONTEXTS
from verify.engines.sources import ledger, open_source
from verify.errors import VerifyError
from verify.parallel.deployment import Deployment, layouts

FUSES = "        return not attention_is_data_parallel() and batch.small\n"
PREPARE = """
    def prepare_attn(self, hidden_states, residual):
        if can_fuse():
            return self.norm.forward_with_allreduce_fusion(
                hidden_states, residual, use_attn_tp_group=False
            )
        else:
            hidden_states = {unfused}(hidden_states)
        return self.norm(hidden_states, residual)

"""
GROUPS = """
def ensure_workspace_initialized(use_attn_tp_group=True):
    if use_attn_tp_group:
        coordinator = get_attn_tp_group()
    else:
        if get_parallel().moe_ep_size > 1:
            coordinator = get_moe_ep_group()
        else:
            coordinator = get_moe_tp_group()
    return coordinator
"""
SIZES = "get_parallel().moe_ep_size > 1 and get_parallel().moe_tp_size > 1"
AITER = "_use_aiter and enable_aiter_allreduce_fusion()"


@pytest.fixture
def source(tmp_path, mini_sglang):
    """The sample source, whose communicator decides about fusion by another condition."""

    def make(*, fuses="waiting_for_something()", unfused=None, groups=None):
        shutil.rmtree(tmp_path / "sglang", ignore_errors=True)
        shutil.copytree(mini_sglang / "sglang", tmp_path / "sglang")
        layers = tmp_path / "sglang/srt/layers"
        text = (layers / "communicator.py").read_text()
        assert text.count(FUSES) == 1
        text = text.replace(FUSES, f"        return {fuses}\n")
        (layers / "communicator.py").write_text(
            text + (PREPARE.format(unfused=unfused) if unfused else "")
        )
        if groups:
            (layers / "flashinfer_comm_fusion.py").write_text(groups)
        return tmp_path

    return make


def release_of(path):
    with open_source(str(path)) as tree:
        return read_release(tree)


def test_over_which_group_the_fused_norm_sums(source):
    assert release_of(source()).fused_group == "tp"
    assert release_of(source(groups=GROUPS)).fused_group == "ep-or-moe-tp"
    old = GROUPS.replace("use_attn_tp_group=True", "").replace("if use_attn_tp_group", "if small()")
    assert release_of(source(groups=old)).fused_group == "tp", "nobody picks the experts' group"


def test_over_which_group_prepare_attn_sums_when_it_cannot_fuse(source):
    assert release_of(source()).unfused_group == "none"
    moe_tp = source(unfused="moe_tensor_model_parallel_all_reduce")
    assert release_of(moe_tp).unfused_group == "moe_tp"
    assert release_of(source(unfused="tensor_model_parallel_all_reduce")).unfused_group == "tp"


def fuses(path, fusion="flashinfer", *, mode="full", last=False, **sizes):
    enabled = sizes.get("attn_dp_size", 1) > 1
    config = MoeConfig(**{"tp_size": 4, "enable_dp_attention": enabled, **sizes})
    deployment = Deployment(config=config, fusion=fusion)
    return release_of(path).answers.fuses(deployment, mode, last=last)


HYBRID = {"ep_size": 2}
ATTENTION_DP = {"attn_dp_size": 2}


@pytest.mark.parametrize(
    ("condition", "where"),
    [
        ("waiting_for_something()", {"hybrid", "attention DP", "dispatched", "last"}),
        (f"not ({SIZES})", {"attention DP", "dispatched", "last"}),
        ("not (get_parallel().moe_ep_size > 1)", {"attention DP", "last"}),
        ("not is_dp_attention_enabled()", {"hybrid", "dispatched", "last"}),
        # of drafts only
        ("not (is_dp_attention_enabled() and drafts())", None),
        ("get_moe_a2a_backend().is_none()", {"hybrid", "attention DP", "last"}),
        ("not self.is_last_layer", {"hybrid", "attention DP", "dispatched"}),
    ],
)
def test_where_a_layer_leaves_its_sum_to_the_next_norm(source, condition, where):
    path = source(fuses=condition)
    found = {
        "hybrid": fuses(path, **HYBRID),
        "attention DP": fuses(path, **ATTENTION_DP),
        "dispatched": fuses(path, ep_size=4, moe_a2a_backend="deepep"),
        "last": fuses(path, last=True),
    }
    assert {name for name, there in found.items() if there} == (
        found.keys() if where is None else where
    )


def test_each_kernel_has_its_own_condition(source):
    path = source(fuses=f"is_flashinfer_ready() and _is_sm90_supported or {AITER} and batch.small")
    assert fuses(path)
    assert fuses(path, "aiter")
    path = source(fuses=f"_is_sm90_supported or {AITER} and not is_dp_attention_enabled()")
    assert fuses(path, **ATTENTION_DP)
    assert not fuses(path, "aiter", **ATTENTION_DP), "aiter's own condition"
    assert not fuses(source(fuses="_is_flashinfer_available"), "aiter"), "no such route at all"
    config = MoeConfig(tp_size=2, attn_dp_size=2, enable_dp_attention=True)
    assert release_of(path).fusions(config) == ("off", "flashinfer", "flashinfer-declined")
    stands_in = source(fuses="batch.small", unfused="tensor_model_parallel_all_reduce")
    assert "no-fused-norm" in release_of(stands_in).fusions(config)


def test_no_layer_is_judged_where_no_server_runs_it(source, mini_sglang):
    """An FP4 dispatcher's kernels are CUDA's: no server has them beside aiter's."""
    answers = release_of(source(fuses=AITER)).answers
    config = MoeConfig(
        tp_size=2,
        ep_size=2,
        attn_dp_size=2,
        enable_dp_attention=True,
        moe_runner_backend="flashinfer_cutlass",
        quantization="modelopt_fp4",
    )
    deployment = Deployment(config=config, fusion="aiter")
    assert deployment.fp4_allgather
    assert not answers.fuses(deployment, "full", last=False)
    plain = replace(deployment, config=replace(config, quantization=None))
    assert answers.fuses(plain, "full", last=False)


RS = "return self.allow_reduce_scatter and attention_is_data_parallel() and batch_is_padded(batch)"


@pytest.mark.parametrize(
    ("condition", "padded", "unpadded"),
    [
        ("self.allow_reduce_scatter and forward_batch.dp_padding_mode.is_max_len()", True, False),
        ("self.allow_reduce_scatter", True, True),
        ("False", False, False),
    ],
)
def test_where_a_block_leaves_its_sum_to_a_reduce_scatter(source, condition, padded, unpadded):
    path = source()
    communicator = path / COMMUNICATOR_FILE
    text = communicator.read_text()
    assert text.count(RS) == 1
    text = text.replace(
        "should_use_reduce_scatter(self, batch)", "should_use_reduce_scatter(self, forward_batch)"
    )
    communicator.write_text(text.replace(RS, f"return {condition}"))
    answers = release_of(path).answers
    config = MoeConfig(tp_size=2, attn_dp_size=2, enable_dp_attention=True)

    def scatters(*, allowed=True, **layer):
        deployment = Deployment(config=config, **layer)
        return answers.scatters(deployment, "full", allowed=allowed, by_size=False)

    assert (scatters(), scatters(padding="sum_len")) == (padded, unpadded)
    assert not scatters(allowed=False)


def test_a_layer_s_own_wish_is_part_of_its_block(source):
    """Fusion that the layer rules out never arrives: the block reduces, and nobody is accused."""
    path = source(fuses="batch.small and not attention_is_data_parallel()")
    oak = path / "sglang/srt/models/oak.py"
    asked = "self.communicator.should_fuse_mlp_allreduce_with_next_layer(batch)"
    assert oak.read_text().count(asked) == 1

    def heard():
        with open_source(str(path)) as tree:
            return {s.name: s.guards.accepts for s in read(tree).subjects}["oak/OakBlock.forward"]

    assert heard() == {"AF", "RS"}
    oak.write_text(oak.read_text().replace(asked, f"False and {asked}"))
    assert heard() == {"RS"}


@pytest.mark.parametrize("on_gpus_only", [True, False])
def test_a_block_of_cpus_is_not_judged_where_rows_move_on_gpus(source, on_gpus_only):
    path = source()
    moves = "memcpy_triton(rows)" if on_gpus_only else "rows"
    (path / "sglang/srt/layers/dp_attention.py").write_text(f"def dp_scatter(rows):\n    {moves}\n")
    oak = path / "sglang/srt/models/oak.py"
    text = oak.read_text()
    assert text.count("        if not (\n") == 1
    oak.write_text(text.replace("        if not (\n", "        if _is_cpu and not (\n"))
    with open_source(str(path)) as tree:
        guards = {s.name: s.guards for s in read(tree).subjects}
    assert guards["oak/OakBlock.forward"].attention_dp is not on_gpus_only
    assert guards["cedar/CedarBlock.forward"].attention_dp
    config = MoeConfig(tp_size=2, attn_dp_size=2, enable_dp_attention=True)
    there = Deployment(config=config, allow_reduce_scatter=True)
    assert ledger().applies(there, guards["oak/OakBlock.forward"]) is not on_gpus_only


@pytest.mark.parametrize(
    ("shared", "rule"),
    [
        ("", "none"),
        ("RowParallelLinear(8, 8, reduce_results=False)", "sharded for FI"),
        (
            "RowParallelLinear(8, 8, reduce_results=False,"
            " tp_size=1 if should_use_flashinfer_cutlass_moe_fp4_allgather() else None)",
            "replicated for FI",
        ),
        ("RowParallelLinear(8, 8, reduce_results=True)", "none"),
    ],
)
def test_how_a_layer_builds_its_shared_experts(source, write_layers, shared, rule):
    path = source()
    srt = path / "sglang/srt"
    write_layers(srt)
    oak = srt / "models/oak.py"
    text = "from sglang.srt.layers.linear import RowParallelLinear\n" + oak.read_text()
    made, used = "FusedMoE(config, reduce_results=False)\n", "self.experts(hidden_states)\n"
    assert (text.count(made), text.count(used)) == (1, 1)
    if shared:
        text = text.replace(made, f"{made}        self.shared = {shared}\n")
        beside = "self.experts(hidden_states) + self.shared(hidden_states)[0]\n"
        text = text.replace(used, beside)
    oak.write_text(text)
    with open_source(str(path)) as tree:
        guards = {s.name: s.guards for s in read(tree).subjects}
    assert guards["oak/OakBlock.forward"].shared_experts == rule


SUMMED = "tensor_model_parallel_all_reduce(hidden_states)"


@pytest.mark.parametrize(
    ("again", "kind"),
    [
        (SUMMED, "exact"),
        (f"tensor_model_parallel_all_reduce({SUMMED})", "double"),
        (f"{SUMMED}\n            hidden_states = {SUMMED}", "double"),
        (f"{SUMMED} if batch else {SUMMED}", "exact"),
    ],
)
def test_a_block_that_sums_what_it_has_summed(source, write_layers, again, kind):
    path = source()
    write_layers(path / "sglang/srt")
    oak = path / "sglang/srt/models/oak.py"
    assert oak.read_text().count(SUMMED) == 1
    oak.write_text(oak.read_text().replace(SUMMED, again))
    with open_source(str(path)) as tree:
        sourced = read(tree)
    guards = next(s.guards for s in sourced.subjects if s.name == "oak/OakBlock.forward")
    plain = Deployment(config=MoeConfig(tp_size=2))
    assert judge(plain, guards, release=sourced.release).kind == kind


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
    # of the same fusions: this source says of none that anything refuses it
    some = prove(subjects, max_world_size=2, release=replace(release, answers=None))
    assert some.deployments < everything.deployments
    assert all(fault.example.config.moe_dp_size == 1 for fault in some.faults.values())


@pytest.mark.parametrize(("name", "taken"), [("gathers", True), ("other", False)])
def test_context_parallel_ranks_are_judged_where_their_tokens_can_be_gathered(source, name, taken):
    """Without it (0.5.9) the server takes the option and every layer stops."""
    path = source()
    attention = path / "sglang/srt/layers/dp_attention.py"
    attention.write_text(f"def {name}():\n    return True\n".replace("gathers", GATHERS_CONTEXTS))
    assert release_of(path).splits_contexts is taken


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
        # fusion under an all-to-all backend is what this source allows, and wrong
        and fault.cause.before != ("all_to_all_experts",)
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
    with (
        open_source(str(tmp_path)) as tree,
        pytest.raises(VerifyError, match="has neither sglang/srt"),
    ):
        read(tree)


def test_a_broken_communicator_is_one_clear_line(source):
    path = source()
    (path / "sglang/srt/layers/communicator.py").write_text("class LayerCommunicator:\n  def (")
    with pytest.raises(VerifyError, match=r"layers/communicator\.py:2: not Python"):
        release_of(path)
