"""The triage's totals are the sums of its lines."""

import re
from collections import Counter
from pathlib import Path

TRIAGE = Path(__file__).parents[3] / "docs" / "findings" / "triage.md"
_TOTAL = re.compile(r"^\| (right|unreachable|wrong|all) \| \d+ \| (\d+) \|$", re.MULTILINE)
_LINE = re.compile(r"^\| (\d+) \| 0\.5.*?\| (RIGHT|UNREACHABLE|WRONG) \|", re.MULTILINE)
_RELEASE = re.compile(r"\b0\.5\.[\w.]+\s+(\d+)(?=[,.])")


def test_totals_add_up() -> None:
    text = TRIAGE.read_text()
    told = {verdict: int(count) for verdict, count in _TOTAL.findall(text)}
    counted: Counter[str] = Counter()
    for count, verdict in _LINE.findall(text):
        counted[verdict.lower()] += int(count)
    assert counted["right"] > 0
    assert {**dict.fromkeys(told, 0), **counted, "all": counted.total()} == told
    releases = next(part for part in text.split("\n\n") if part.startswith("By release: "))
    assert sum(map(int, _RELEASE.findall(releases))) == told["all"]
