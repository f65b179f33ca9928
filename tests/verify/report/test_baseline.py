"""Reviewed baselines: what they accept, what they no longer describe, what they may not say."""

import json
from dataclasses import replace

import pytest

from verify.cli.command_line import main
from verify.errors import VerifyError
from verify.report import baseline
from verify.report.render import render
from verify.report.report import Finding, Report

FIRST = Finding(
    rule="missing-skip",
    message="reduces twice",
    file="sglang/srt/models/cedar.py",
    line=213,
    cls="CedarBlock",
    method="forward",
    row="0010",
)
SECOND = replace(FIRST, method="forward_normal", line=300)
DEPLOYED = Finding(
    rule="lost-sum", message="lost", subject="helper", row="1000", deployment={"tp": 4, "ep": 2}
)


def report(*findings):
    return Report(
        command="scan", title="t", summary="s", payload={}, sections=(), findings=findings
    )


@pytest.fixture
def expect(tmp_path):
    def write(*entries):
        file = tmp_path / "baseline.json"
        file.write_text(json.dumps({"findings": entries}), encoding="utf-8")
        return file

    return write


def rules(found):
    return [finding.rule for finding in found.findings]


def test_a_saved_report_accepts_itself_wherever_its_lines_moved(tmp_path):
    found = report(FIRST, SECOND, DEPLOYED)
    file = tmp_path / "saved.json"
    file.write_text(render(found, format_name="json"), encoding="utf-8")
    moved = tuple(replace(f, line=(f.line or 0) + 7, message="reworded") for f in found.findings)
    judged = baseline.apply(report(*moved), file)
    assert judged.findings == ()
    assert judged.summary == (
        "s; 3 accepted by saved.json, 0 not, 0 stale entries; 3 accepted without a reason"
    )


def test_a_new_finding_is_news(tmp_path):
    file = tmp_path / "saved.json"
    file.write_text(render(report(FIRST), format_name="json"), encoding="utf-8")
    assert baseline.apply(report(FIRST, SECOND), file).findings == (SECOND,)


def test_one_entry_accepts_one_finding(expect):
    entry = {"rule": "missing-skip", "file": FIRST.file}
    assert baseline.apply(report(FIRST, SECOND), expect(entry)).findings == (SECOND,)
    assert baseline.apply(report(FIRST, SECOND), expect(entry, entry)).findings == ()


def test_the_demanding_entry_chooses_first(expect):
    vague = {"rule": "missing-skip", "file": FIRST.file}
    precise = {**vague, "method": "forward"}
    judged = baseline.apply(report(FIRST, SECOND), expect(vague, precise))
    assert judged.findings == ()


@pytest.mark.parametrize(
    "change",
    [
        {"rule": "lost-sum"},
        {"file": "sglang/srt/models/birch.py"},
        {"cls": "Other"},
        {"method": "other"},
        {"row": "0001"},
        {"subject": "other"},
        {"kind": "double"},
        {"deployment": {"tp": 2}},
    ],
)
def test_another_value_of_any_key_is_another_finding(expect, change):
    entry = {key: value for key, value in FIRST.as_json().items() if value}
    judged = baseline.apply(report(FIRST), expect({**entry, **change}))
    assert rules(judged) == ["missing-skip", "stale-expectation"]


def test_deployments_are_compared_by_value(expect):
    entry = {"rule": "lost-sum", "subject": "helper", "deployment": {"ep": 2, "tp": 4}}
    assert baseline.apply(report(DEPLOYED), expect(entry)).findings == ()


def test_a_stale_entry_says_what_to_delete(expect):
    entry = {"rule": "lost-sum", "file": FIRST.file, "cls": "A", "method": "f", "row": "0001"}
    (stale,) = baseline.apply(report(), expect(entry)).findings
    assert stale.rule == "stale-expectation"
    assert stale.message == (
        "baseline.json expects lost-sum in sglang/srt/models/cedar.py A.f, which is no longer found"
    )
    assert stale.fix == "delete the entry from baseline.json"


def test_what_was_not_analysed_is_accepted_with_a_reason_only(expect):
    missed = replace(FIRST, rule="not-analysed")
    entry = {"rule": "not-analysed", "file": FIRST.file}
    (left,) = baseline.apply(report(missed), expect({**entry, "reason": ""})).findings
    assert (left.rule, left.fix) == (
        "not-analysed",
        "mend it, or write a reason into its baseline entry",
    )
    judged = baseline.apply(report(missed), expect({**entry, "reason": "no MoE model"}))
    assert judged.findings == ()
    assert "without a reason" not in judged.summary


def test_what_is_accepted_is_shown_with_its_reason(expect):
    entry = {"rule": "lost-sum", "subject": "helper", "reason": "upstream decided so"}
    judged = baseline.apply(report(DEPLOYED), expect(entry))
    (section,) = judged.sections
    ((cause, *rest),) = section.rows
    assert cause.startswith("lost-sum-")
    assert rest == ["helper", "1000", "upstream decided so"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "it holds no JSON object"),
        ('"findings"', "it holds no JSON object"),
        ("{}", "'findings' is not a list of objects"),
        ('{"findings": [1]}', "'findings' is not a list of objects"),
        ('{"findings": {"rule": "x"}}', "'findings' is not a list of objects"),
        ('{"findings": [{"rule": "x"}]}', "finding 1 accepts too much"),
        ('{"findings": [{"file": "x"}]}', "finding 1 accepts too much"),
        ('{"schema_version": 1, "findings": []}', "has schema_version 1; this version reads 2"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_what_is_no_baseline_is_refused_in_a_line(tmp_path, content, message):
    file = tmp_path / "baseline.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(VerifyError, match=message) as caught:
        baseline.apply(report(FIRST), file)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(VerifyError, match="No such file"):
        baseline.apply(report(), tmp_path / "none.json")


def test_the_command_line_applies_it(monkeypatch, capsys, expect):
    class Fake:
        @staticmethod
        def add_arguments(parser):
            baseline.add_argument(parser)

        @staticmethod
        def run(_arguments):
            return report(FIRST)

    monkeypatch.setattr("verify.cli.command_line.import_module", lambda _name: Fake)
    accepted = expect({"rule": "missing-skip", "file": FIRST.file})
    assert main(["scan"]) == 1
    assert main(["scan", "--expect", str(accepted)]) == 0
    stale = expect({"rule": "lost-sum", "file": FIRST.file})
    assert main(["scan", "--expect", str(stale)]) == 1
    captured = capsys.readouterr()
    assert "1 accepted by baseline.json, 0 not, 0 stale entries" in captured.err
    assert "stale-expectation" in captured.out
