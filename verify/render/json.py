"""JSON per the contract in docs/design.md; keys are stable, more may be added."""

import json

from verify.report import Report


def render(report: Report) -> str:
    """The report as one indented JSON document with a final newline."""
    return json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n"
