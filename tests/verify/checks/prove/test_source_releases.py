"""Public bugs of releases, found in their sources by the proof, and gone where they were fixed."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from helper import MoeConfig
from verify.checks.prove.findings import stories
from verify.checks.prove.judge import judge
from verify.checks.prove.lattice import prove
from verify.checks.prove.source import read, read_release
from verify.checks.prove.subject import helper_guards
from verify.engines.sources import open_source
from verify.parallel.deployment import Deployment


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


def only(tree, *models):
    """The source with the other models left out."""
    models = tuple(f"/models/{model}.py" for model in models)
    kept = tuple(p for p in tree.paths if "/models/" not in p or p.endswith(models))
    return replace(tree, paths=kept)


@pytest.mark.network
@pytest.mark.parametrize(
    ("version", "model", "backend", "behind"),
    [
        pytest.param("0.5.17", "qwen3_moe", "mori", True, id="34887"),
        pytest.param("0.5.18", "qwen3_moe", "mori", False, id="34887 until 0.5.18"),
        pytest.param("0.5.20", "minimax_m3", "ascend_fuseep", True, id="40735"),
        pytest.param("0.5.20", "deepseek_v2", "ascend_fuseep", False, id="a block that knows it"),
        pytest.param("0.5.20", "glm4_moe", "deepep_v2", False, id="a backend that it is refused"),
    ],
)
def test_blocks_that_reduce_behind_a_combine_that_they_do_not_name(version, model, backend, behind):
    with open_source(f"sglang=={version}") as tree:
        sourced = read(only(tree, model))
    mine = [s for s in sourced.subjects if s.name.startswith(f"{model}/")]
    tally = prove(mine, max_world_size=2, release=sourced.release)
    summed = [
        fault
        for fault in tally.faults.values()
        if fault.cause.sites and "all_to_all_experts" in fault.cause.before
    ]
    assert any(backend in fault.guards.reached_by for fault in summed) is behind
    assert all(
        f.example.config.moe_a2a_backend in {*f.guards.reached_by, "customized"} for f in summed
    )


@pytest.mark.network
@pytest.mark.parametrize("without", [False, True])
def test_19411_a_last_layer_that_is_not_told(without):
    told = b"            is_last_layer=(layer_id == config.num_hidden_layers - 1),\n"
    file = "sglang/srt/models/qwen3_5.py"
    with open_source("sglang==0.5.10.post1") as tree:
        load = tree._load

        def loaded(path):
            raw = load(path)
            assert path != file or told in raw
            return raw.replace(told, b"") if without and path == file else raw

        some = only(tree, "qwen3_5", "qwen2_moe", "qwen3_moe", "qwen2")
        sourced = read(replace(some, _load=loaded))
    tally = prove(sourced.subjects, max_world_size=2, release=sourced.release)
    lost = any(
        fault.cause.reader == "final norm" and fault.cause.kind == "missing"
        for fault in tally.faults.values()
    )
    assert lost is without


@pytest.mark.network
@pytest.mark.parametrize(("version", "copies"), [("0.5.12", True), ("0.5.15.post1", False)])
def test_26845_a_shared_expert_that_every_expert_rank_has(version, copies):
    with open_source(f"sglang=={version}") as tree:
        sourced = read(only(tree, "qwen3_5", "qwen2_moe", "qwen3_moe", "qwen3_vl", "qwen2"))
    blocks = [s for s in sourced.subjects if s.name.startswith("qwen2_moe/")]
    assert blocks
    tally = prove(blocks, max_world_size=2, release=sourced.release)
    doubled = [
        fault
        for fault in tally.faults.values()
        if fault.example.shared == "fused" and fault.cause.kind == "double"
    ]
    assert any(fault.example.config.ep_size == 2 for fault in doubled) is copies


PAGE = Path(__file__).parents[4] / "docs" / "results" / "prove-releases.md"
TABLE = re.compile(r"^\| (0\.5\.[\w.]+) \| (\d+) \| [\d,]+ \| [\d,]+ \| (\d+) \|$", re.MULTILINE)
COUNTED = TABLE.findall(PAGE.read_text())


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize(("version", "subjects", "causes"), COUNTED)
def test_the_page_has_as_many_subjects_and_causes(version, subjects, causes):
    """Every cause shows on four ranks or fewer; deployments and cases are those of 64."""
    with open_source(f"sglang=={version}") as tree:
        sourced = read(tree)
    tally = prove(sourced.subjects, max_world_size=4, release=sourced.release)
    told = stories(tuple(tally.faults.values()), sourced.subjects, sourced.release)
    assert (len(sourced.subjects), len(told)) == (int(subjects), int(causes))


def test_the_page_counts_eleven_releases():
    assert len(COUNTED) == 11
