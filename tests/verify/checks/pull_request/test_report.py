"""The report: the JSON contract, the sections, the findings."""

import json
from dataclasses import replace

import jsonschema
import pytest

from oracles import SITES, Site
from verify.checks.pull_request.report import build
from verify.report.render import render
from verify.report.report import Finding, GridSection, Report, TableSection

BITS = {"type": "array", "items": {"type": "string", "pattern": "^[01]{4}$"}}
CONTRACT = {
    "type": "object",
    "required": [
        "schema_version",
        "flags",
        "reachable_rows",
        "sites",
        "categories",
        "claims",
        "findings",
    ],
    "properties": {
        "schema_version": {"const": 2},
        "flags": {"const": ["AF", "RS", "DP", "FI"]},
        "reachable_rows": BITS,
        "sites": {
            "type": "array",
            "items": {
                "required": ["id", "model", "path", "category", "accepts", "diffs", "unexpected"],
                "properties": {
                    "path": {"enum": ["EP", "TP"]},
                    "category": {"enum": ["A", "B", "C", "D-EP", "D-TP"]},
                    "accepts": {"type": "array", "items": {"enum": ["AF", "RS"]}},
                    "diffs": {
                        "required": ["signature", "called", "passed"],
                        "additionalProperties": BITS,
                    },
                    "unexpected": BITS,
                },
            },
        },
        "categories": {
            "type": "array",
            "items": {"required": ["id", "title", "sites", "expected_diffs", "unexpected_diffs"]},
        },
        "claims": {
            "type": "array",
            "items": {
                "required": ["id", "claim", "verdict", "evidence"],
                "properties": {"verdict": {"enum": ["holds", "conditional", "fails"]}},
            },
        },
    },
}
CORRUPT = replace(SITES[0], guard="not AF and not RS and not FI")


def section(report: Report, title: str) -> TableSection:
    (found,) = (s for s in report.sections if isinstance(s, TableSection) and s.title == title)
    return found


def test_json_keeps_its_contract() -> None:
    document = json.loads(render(build(), format_name="json"))
    jsonschema.validate(document, CONTRACT)
    assert [site["id"] for site in document["sites"]] == [site.id for site in SITES]


def test_category_counts() -> None:
    payload = json.loads(render(build(), format_name="json"))
    counts = {
        entry["id"]: (entry["sites"], entry["expected_diffs"], entry["unexpected_diffs"])
        for entry in payload["categories"]
    }
    assert counts == {
        "A": (14, 0, 0),
        "B": (1, 1, 0),
        "C": (3, 3, 0),
        "D-EP": (2, 0, 0),
        "D-TP": (2, 2, 0),
    }


def test_the_counters_carry_the_pull_request_s_names() -> None:
    rows = section(build(), "The pull request's five counters").rows
    assert [(row[0], row[2]) for row in rows] == [
        ("Cat A", "0"),
        ("Cat B", "0"),
        ("Cat C", "0"),
        ("Cat D EP", "0"),
        ("Cat D TP", "0"),
    ]


def test_the_summary() -> None:
    assert build().summary == (
        "22 sites, 6 differ, 0 unexpected diffs; 10 claims, 4 hold, 5 conditional, 1 fails"
    )


def test_the_grid_shows_every_site_once_in_every_row() -> None:
    (grid,) = (s for s in build().sections if isinstance(s, GridSection))
    assert sorted(line.label for line in grid.lines) == sorted(site.id for site in SITES)
    assert all(len(line.cells) == len(grid.rows) == 16 for line in grid.lines)


LINES = {
    # rows 0000 .. 1111
    "qwen3_moe/Qwen3MoeSparseMoeBlock.forward_normal/TP": "Rss. sss. sss. sss.",
    "qwen3_moe/Qwen3MoeSparseMoeBlock.forward_normal/EP": "RRs. sss. sss. sss.",
    "bailing_moe_linear/BailingMoE.forward/TP": "Rds. sss. sss. sss.",
    "llama4/Llama4MoE.forward/TP": "Rds. sss. .... ....",
    "hunyuan_v3/HYV3MoEFused._forward_single_stream/TP": "Rds. .... .... ....",
    "hunyuan_v3/HYV3MoEFused._forward_single_stream/EP": "RRs. .... .... ....",
}
MARKS = {"reduce": "R", "skip": "s", "expected": "d", "unexpected": "X", "unreachable": "."}


@pytest.mark.parametrize("site", LINES)
def test_cells(site: str) -> None:
    (grid,) = (s for s in build().sections if isinstance(s, GridSection))
    (line,) = (line for line in grid.lines if line.label == site)
    assert "".join(MARKS[cell] for cell in line.cells) == LINES[site].replace(" ", "")


def test_an_unexpected_cell_stands_where_the_row_is() -> None:
    (grid,) = (s for s in build([CORRUPT]).sections if isinstance(s, GridSection))
    (line,) = grid.lines
    assert "".join(MARKS[cell] for cell in line.cells) == "RsX.sss.sss.sss."
    assert line.facets["verdict"] == "unexpected diff"


def test_the_verdicts_a_reader_can_filter_by() -> None:
    (grid,) = (s for s in build().sections if isinstance(s, GridSection))
    verdicts = {line.facets["category"]: line.facets["verdict"] for line in grid.lines}
    assert verdicts == {
        "A": "identical",
        "B": "expected diff",
        "C": "expected diff",
        "D-EP": "identical",
        "D-TP": "expected diff",
    }


INFERRED = ("The pull request's text does not define this category: inferred.",)
TABLES = {
    "Cat B: latent fix: FI": (
        (("bailing_moe_linear forward TP", "AF RS", "0001", "0001", "0001"),),
        (),
    ),
    "Cat C: latent fix: FI, AF not received": (
        (
            ("exaone_moe forward TP", "RS", "0001", "0001 1001", "0001 1000 1001"),
            ("llada2 forward_normal TP", "RS", "0001", "0001 1001", "0001 1000 1001"),
            ("llama4 forward TP", "RS", "0001", "0001 1001", "0001 1000 1001"),
        ),
        INFERRED,
    ),
    "Cat D EP: hunyuan_v3 EP: byte-identical": (
        (
            (
                "hunyuan_v3 _forward_single_stream EP",
                "-",
                "-",
                "-",
                "0100 0101 1000 1001 1100 1101",
            ),
            ("hunyuan_v3 _forward_dual_stream EP", "-", "-", "-", "0100 0101 1000 1001 1100 1101"),
        ),
        INFERRED,
    ),
    "Original guards that did not know a reason of their path": (
        (
            ("AF", "7", "exaone_moe TP, hunyuan_v3 EP, hunyuan_v3 TP, llada2 TP, llama4 TP"),
            ("RS", "4", "hunyuan_v3 EP, hunyuan_v3 TP"),
            ("DP", "0", "-"),
            (
                "FI",
                "6",
                "bailing_moe_linear TP, exaone_moe TP, hunyuan_v3 TP, llada2 TP, llama4 TP",
            ),
        ),
        (),
    ),
    "What 296 configurations can produce": (
        (
            ("0", "0", "the default"),
            (
                "0",
                "1",
                "tp_size=2 ep_size=2 attn_dp_size=2 enable_dp_attention=True "
                "moe_runner_backend=flashinfer_cutlass quantization=modelopt_fp4",
            ),
            ("1", "0", "tp_size=2 ep_size=2 attn_dp_size=2 enable_dp_attention=True"),
        ),
        ("12 of 16 rows are reachable; flags that forward() receives are taken as free.",),
    ),
}


@pytest.mark.parametrize("title", TABLES)
def test_a_table_word_by_word(title: str) -> None:
    found = section(build(), title)
    assert (found.rows, found.notes) == TABLES[title]


def test_an_unexpected_diff_is_a_finding_with_its_place_and_smallest_row() -> None:
    (finding,) = build([CORRUPT]).findings
    assert finding == Finding(
        rule="unexpected-diff",
        subject="bailing_moe/BailingMoESparseMoeBlock.forward_normal/TP",
        file="sglang/srt/models/bailing_moe.py",
        line=385,
        cls="BailingMoESparseMoeBlock",
        method="forward_normal",
        row="0010",
        message="the migrated call skips where the original reduced; "
        "rows that category A does not allow: 0010",
        fix="read the guard again at the oracle's lines, or move the site to another category",
    )


MESSAGES = {
    "the migrated call reduces where the original skipped; "
    "rows that category A does not allow: 0000": replace(SITES[0], guard="False"),
    "the guard depends on a flag that forward() does not receive; "
    "rows that category C does not allow: 1000 1001": replace(
        next(site for site in SITES if site.category == "C"),
        guard="not AF and not RS and not DP",
    ),
    "no diff where the category says that FI was missing; "
    "rows that category B does not allow: 0001": replace(
        next(site for site in SITES if site.category == "B"),
        guard="not AF and not RS and not DP and not FI",
    ),
}


@pytest.mark.parametrize(("message", "site"), MESSAGES.items(), ids=range(len(MESSAGES)))
def test_the_words_of_a_finding(message: str, site: Site) -> None:
    (finding,) = build([site]).findings
    assert finding.message == message


def test_a_selection_leaves_the_claims_alone() -> None:
    few = build([site for site in SITES if site.model == "llama4"])
    assert few.payload["claims"] == build().payload["claims"]
    assert section(few, "The pull request's five counters").rows[0][1] == "0"
    assert "Cat A: byte-identical" not in [s.title for s in few.sections]


def test_the_same_report_every_time() -> None:
    assert render(build(), format_name="json") == render(build(), format_name="json")
