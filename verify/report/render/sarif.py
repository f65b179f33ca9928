"""SARIF 2.1.0 for code scanning: one run, a rule with help text for each rule id that occurs.

Fingerprints do not depend on line numbers, so that an alert follows its code through commits.
"""

import json
from urllib.parse import quote

from verify.report import about
from verify.report.causes import id_of, level_of
from verify.report.fingerprint import fingerprints
from verify.report.render.words import one_line, place, printable, shown_by
from verify.report.report import NOT_ANALYSED, SUMS_FIRST, SUMS_UP, Finding, Json, Report
from verify.report.rules import Rule, rule

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
# what happens to a sum that two places add up
ADDS = "adds to what is summed up later"
TWICE = ("double", "twice", "combined", "backend")
FINGERPRINT = "moeAllreduceVerify/v1"


def render(report: Report) -> str:
    """The findings as one SARIF log."""
    rules = sorted({finding.rule for finding in report.findings})
    results = [
        _result(finding, fingerprint, rules.index(finding.rule), report)
        for finding, fingerprint in zip(report.findings, fingerprints(report.findings), strict=True)
    ]
    driver: dict[str, Json] = {
        "name": about.NAME,
        "version": about.version(),
        **({"informationUri": about.home()} if about.home() else {}),
        "rules": [_rule(rule(rule_id)) for rule_id in rules],
    }
    provenance = _provenance(report)
    run: dict[str, Json] = {
        "tool": {"driver": driver},
        "invocations": [_invocation(report)],
        "automationDetails": {"id": f"moe-allreduce-verify/{report.command}/"},
        **({"versionControlProvenance": provenance} if provenance else {}),
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    log: dict[str, Json] = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=1) + "\n"


def _invocation(report: Report) -> dict[str, Json]:
    """What was not looked at: code scanning must not take it for fixed."""
    missed = [one for one in report.findings if one.rule == NOT_ANALYSED]
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
        **({"helpUri": about.rule_address(law.id)} if about.home() else {}),
        "help": {"text": law.help, "markdown": law.help},
        "defaultConfiguration": {"level": law.level},
        "properties": {"tags": ["correctness", "distributed"], "precision": "high"},
    }


def _provenance(report: Report) -> list[Json]:
    """The repository and the commit or the public tag that the files are of."""
    if report.commit:
        return [{"repositoryUri": report.commit[0], "revisionId": report.commit[1]}]
    repository, blob, rest = report.web.partition("/blob/")
    if not blob:
        return []
    return [{"repositoryUri": repository, "revisionTag": rest.partition("/")[0]}]


def _result(finding: Finding, fingerprint: str, rule_index: int, report: Report) -> dict[str, Json]:
    properties = {
        "row": finding.row,
        "deployment": finding.deployment,
        "counts": finding.counts,
        "cause": id_of(finding),
        "reach": finding.reach,
        "launch": finding.launch or None,
        "needs": finding.needs or None,
    }
    related: list[Json] = [
        {
            "id": number,
            "message": {"text": printable(other.what)},
            "physicalLocation": _physical(other.file, other.line, report),
        }
        for number, other in enumerate(finding.related, start=1)
    ]
    return {
        "ruleId": finding.rule,
        "ruleIndex": rule_index,
        "level": level_of(finding),
        "message": {"text": _message(finding)},
        "locations": [_location(finding, report)],
        **({"relatedLocations": related} if related else {}),
        **_flow(finding, report),
        "partialFingerprints": {FINGERPRINT: fingerprint},
        "properties": {name: value for name, value in properties.items() if value is not None},
    }


def _flow(finding: Finding, report: Report) -> dict[str, Json]:
    """Where two places sum: from the one to the other."""
    if finding.kind not in TWICE or finding.file is None or not finding.related:
        return {}
    steps = [(other.what, other.file, other.line) for other in finding.related]
    earlier = [step for step in steps if step[0].startswith(SUMS_FIRST)]
    later = any(what == SUMS_UP for what, *_ in steps)
    does = "sums up again" if earlier else ADDS if later else "sums up"
    own = (does, finding.file, finding.line or 1)
    steps = [*earlier, own, *(step for step in steps if step not in earlier)]
    locations: list[Json] = [
        {
            "location": {
                "message": {"text": printable(what)},
                "physicalLocation": _physical(file, line, report),
            }
        }
        for what, file, line in steps
    ]
    return {"codeFlows": [{"threadFlows": [{"locations": locations}]}]}


def _message(finding: Finding) -> str:
    """Message, the case that shows it and the fix: code scanning shows no other field at once."""
    case = shown_by(finding)
    parts = (finding.message, finding.sums, f"Shown by {case}." if case else "", finding.fix)
    return printable("\n".join(filter(None, parts)))


def _location(finding: Finding, report: Report) -> dict[str, Json]:
    """A file and line where there is one, else the subject by name."""
    name = ".".join(filter(None, (finding.cls, finding.method))) or place(finding) or finding.rule
    location: dict[str, Json] = {
        "logicalLocations": [{"fullyQualifiedName": printable(name), "kind": "function"}]
    }
    if finding.file is not None:
        location["physicalLocation"] = _physical(finding.file, finding.line or 1, report)
    return location


def _physical(file: str, line: int, report: Report) -> dict[str, Json]:
    """A line, from its first character to its last where the source is at hand."""
    region: dict[str, Json] = {"startLine": max(line, 1)}
    code = report.code.get(file, {}).get(line, "").rstrip()
    if code.strip():
        first = len(code) - len(code.lstrip()) + 1
        region |= {
            "startColumn": first,
            "endColumn": len(code) + 1,
            "snippet": {"text": printable(code.lstrip())},
        }
    uri = quote(report.file_prefix + file, errors="replace")
    return {"artifactLocation": {"uri": uri, "uriBaseId": "%SRCROOT%"}, "region": region}
