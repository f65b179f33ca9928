"""One site's truth table, with who completes the sum."""

import json
from dataclasses import replace

import pytest

from oracles import SITES
from verify.checks.pull_request.explain import explain
from verify.checks.pull_request.readings import compare
from verify.report.render import render
from verify.report.report import TableSection

BY_ID = {comparison.site.id: comparison for comparison in compare(SITES)}
QWEN3_EP = "qwen3_moe/Qwen3MoeSparseMoeBlock.forward_normal/EP"
EXAONE = "exaone_moe/ExaoneMoESparseMoEBlock.forward/TP"


def rows(site: str) -> dict[str, tuple[str, str, str, str]]:
    """row -> original, migrated, completed by, note"""
    (table,) = (
        section
        for section in explain(BY_ID[site]).sections
        if isinstance(section, TableSection) and "original" in section.columns
    )
    return {"".join(row[:4]): (row[4], row[5], row[6], row[7]) for row in table.rows}


@pytest.mark.parametrize("site", BY_ID)
def test_sixteen_rows_in_order(site: str) -> None:
    assert list(rows(site)) == [format(row, "04b") for row in range(16)]


EXAMPLES = {
    (QWEN3_EP, "0000"): ("reduces", "reduces", "block", ""),
    (QWEN3_EP, "0001"): ("reduces", "reduces", "block + FI", ""),
    (QWEN3_EP, "0010"): ("skips", "skips", "DP", ""),
    (QWEN3_EP, "0011"): ("skips", "skips", "DP + FI", "no configuration"),
    (EXAONE, "0001"): ("reduces", "skips", "FI", "expected diff"),
    (EXAONE, "1000"): ("reduces", "reduces", "block + AF", "not received"),
    (EXAONE, "1100"): ("skips", "skips", "AF + RS", "not received"),
}


@pytest.mark.parametrize(("site", "row"), EXAMPLES)
def test_a_row(site: str, row: str) -> None:
    assert rows(site)[row] == EXAMPLES[site, row]


@pytest.mark.parametrize("site", BY_ID)
def test_the_payload_says_what_the_table_says(site: str) -> None:
    payload = json.loads(render(explain(BY_ID[site]), format_name="json"))
    shown = rows(site)
    for entry in payload["rows"]:
        original, migrated, by, note = shown[entry["row"]]
        assert (entry["original"], entry["migrated"]) == (original, migrated)
        assert " + ".join(entry["completed_by"]) == by
        assert (entry["diff"] is not None) == note.endswith(" diff")
        assert entry["reachable"] == (note != "no configuration" or entry["diff"] is not None)


def test_the_payload_says_what_forward_receives() -> None:
    payload = json.loads(render(explain(BY_ID[EXAONE]), format_name="json"))
    received = [entry["row"] for entry in payload["rows"] if entry["received"]]
    assert received == [row for row in map("{:04b}".format, range(16)) if row[0] == "0"]


def test_an_unexpected_diff_is_noted_in_its_rows_and_found() -> None:
    (corrupt,) = compare([replace(SITES[0], guard="not AF and not RS and not FI")])
    report = explain(corrupt)
    payload = json.loads(render(report, format_name="json"))
    assert {e["row"]: e["diff"] for e in payload["rows"] if e["diff"]} == {"0010": "unexpected"}
    assert [finding.row for finding in report.findings] == ["0010"]
    assert "unexpected diff" in render(report, format_name="table")


def test_what_the_oracle_states() -> None:
    facts = explain(BY_ID["hunyuan_v3/HYV3MoEFused._forward_single_stream/EP"]).sections[0]
    assert isinstance(facts, TableSection)
    assert facts.rows == (
        ("reduced where", "not DP"),
        ("and where", "self.ep_size > 1 (moe_ep group)"),
        ("collective", "moe_expert_parallel_all_reduce"),
        ("receives", "no flag"),
        ("category", "D-EP, hunyuan_v3 EP: byte-identical"),
        ("read from", "sgl-project/sglang at da175b964d15"),
        ("lines", "sglang/srt/models/hunyuan_v3.py:195-196"),
    )


def test_the_names_used_are_explained() -> None:
    names = explain(BY_ID[EXAONE]).sections[-1]
    assert isinstance(names, TableSection)
    assert names.rows == (
        ("block", "tensor_model_parallel_all_reduce"),
        ("AF", "the next layer's prepare_attn, fused with residual add and norm"),
        ("RS", "LayerCommunicator's reduce-scatter after the MLP"),
        ("DP", "LayerCommunicator's reduce_scatterv over the TP group"),
        ("FI", "the standard dispatcher's combine, by reduce_scatterv over the TP group"),
    )


def test_the_summary() -> None:
    assert explain(BY_ID[EXAONE]).summary == "16 rows, 1 expected and 0 unexpected diffs"


def test_somebody_completes_every_row() -> None:
    assert not any("nobody" in row[2] for site in BY_ID for row in rows(site).values())
