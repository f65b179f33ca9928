"""JSON per the contract in docs/design.md; keys are stable, more may be added."""

import json

from verify.report import causes
from verify.report.report import Report


def render(report: Report) -> str:
    """The report as one indented JSON document with a final newline."""
    return json.dumps(causes.as_json(report), indent=1, ensure_ascii=False) + "\n"
