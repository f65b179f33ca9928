"""Every branch of the plan done wrong is noticed, by the proof or by a test."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "plan_mutants.py"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_mutant_is_found() -> None:
    lines = subprocess.run(
        [sys.executable, str(SCRIPT)], check=True, capture_output=True, text=True, timeout=3500
    ).stdout.splitlines()
    mutants = [json.loads(line) for line in lines]
    assert len(mutants) > 200
    assert [each["change"] for each in mutants if not each["found_by"]] == []
    # what a plan sums and places is found without anyone saying what it should be
    found = Counter(each["found_by"] for each in mutants)
    assert found["prove"] > len(mutants) / 2
