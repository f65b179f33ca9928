"""What makes two findings the same finding: neither the line nor the wording.

Code scanning, baselines and comparisons all follow a finding through commits that move it.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping

from verify.report.report import Finding, Json

# what a finding is about; line, message, fix and counts follow from it and may change
IDENTITY = ("rule", "kind", "subject", "file", "cls", "method", "row", "deployment")

Identity = tuple[str, ...]


def identity(finding: Mapping[str, Json]) -> Identity:
    """The identifying values of a finding's JSON form, as text, in the order of `IDENTITY`."""
    # where a launch is said, the deployment follows from it, and it from the source
    follows = {"deployment"} if finding.get("launch") else set()
    return tuple(canonical(None if key in follows else finding.get(key)) for key in IDENTITY)


def canonical(value: Json) -> str:
    """Equal for equal values, whether made here or read back from a file; absent is empty."""
    return json.dumps(value or None, sort_keys=True)


def numbered(
    findings: Iterable[Mapping[str, Json]],
) -> dict[tuple[Identity, int], Mapping[str, Json]]:
    """Each finding by its identity and which of its equals it is, in the order given."""
    seen: Counter[Identity] = Counter()
    result = {}
    for finding in findings:
        mine = identity(finding)
        result[mine, seen[mine]] = finding
        seen[mine] += 1
    return result


def fingerprints(findings: Iterable[Finding]) -> list[str]:
    """A stable hexadecimal digest for each finding, equal findings told apart by their order."""
    return [
        hashlib.sha256(json.dumps([*mine, number]).encode()).hexdigest()[:32]
        for mine, number in numbered(finding.as_json() for finding in findings)
    ]
