"""SARIF 2.1.0 for code scanning: one run, a rule with help text for each rule id that occurs.

Fingerprints do not depend on line numbers, so that an alert follows its code through commits.
"""

import json
from importlib.metadata import version
from urllib.parse import quote

from verify.fingerprint import fingerprints
from verify.render.words import one_line, place, printable, shown_by
from verify.report import Finding, Json, Report
from verify.rules import Rule, rule

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
INFORMATION = "https://github.com/sgl-project/sglang/pull/23748"
FINGERPRINT = "moeAllreduceVerify/v1"


def render(report: Report) -> str:
    """The findings as one SARIF log."""
    rules = sorted({finding.rule for finding in report.findings})
    results = [
        _result(finding, fingerprint, rules.index(finding.rule), report.file_prefix)
        for finding, fingerprint in zip(report.findings, fingerprints(report.findings), strict=True)
    ]
    driver: dict[str, Json] = {
        "name": "moe-allreduce-verify",
        "version": version("moe-allreduce-verify"),
        "informationUri": INFORMATION,
        "rules": [_rule(rule(rule_id)) for rule_id in rules],
    }
    run: dict[str, Json] = {
        "tool": {"driver": driver},
        "invocations": [_invocation(report)],
        "automationDetails": {"id": f"moe-allreduce-verify/{report.command}/"},
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    log: dict[str, Json] = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=1) + "\n"


def _invocation(report: Report) -> dict[str, Json]:
    """What was not looked at: code scanning must not take it for fixed."""
    missed = [one for one in report.findings if one.rule == "not-analysed"]
    return {
        "executionSuccessful": not missed,
        "toolExecutionNotifications": [
            {"level": "error", "message": {"text": one_line(one.message)}} for one in missed
        ],
    }


def _rule(law: Rule) -> dict[str, Json]:
    return {
        "id": law.id,
        "name": "".join(word.capitalize() for word in law.id.split("-")),
        "shortDescription": {"text": law.title},
        "fullDescription": {"text": law.help},
        "help": {"text": law.help, "markdown": law.help},
        "defaultConfiguration": {"level": law.level},
        "properties": {"tags": ["correctness", "distributed"], "precision": "high"},
    }


def _result(finding: Finding, fingerprint: str, rule_index: int, prefix: str) -> dict[str, Json]:
    properties = {"row": finding.row, "deployment": finding.deployment, "counts": finding.counts}
    return {
        "ruleId": finding.rule,
        "ruleIndex": rule_index,
        "level": rule(finding.rule).level,
        "message": {"text": _message(finding)},
        "locations": [_location(finding, prefix)],
        "partialFingerprints": {FINGERPRINT: fingerprint},
        "properties": {name: value for name, value in properties.items() if value is not None},
    }


def _message(finding: Finding) -> str:
    """Message, the case that shows it and the fix: code scanning shows no other field at once."""
    case = shown_by(finding)
    parts = (finding.message, f"Shown by {case}." if case else "", finding.fix)
    return printable("\n".join(filter(None, parts)))


def _location(finding: Finding, prefix: str) -> dict[str, Json]:
    """A file and line where there is one, else the subject by name."""
    name = ".".join(filter(None, (finding.cls, finding.method))) or place(finding) or finding.rule
    location: dict[str, Json] = {
        "logicalLocations": [{"fullyQualifiedName": printable(name), "kind": "function"}]
    }
    if finding.file is not None:
        location["physicalLocation"] = {
            "artifactLocation": {
                "uri": quote(prefix + finding.file, errors="replace"),
                "uriBaseId": "%SRCROOT%",
            },
            "region": {"startLine": max(finding.line or 1, 1)},
        }
    return location
