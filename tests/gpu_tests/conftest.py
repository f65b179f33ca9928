import json
import sys
from importlib import import_module
from pathlib import Path

import pytest


@pytest.fixture
def drill(monkeypatch):
    """`drills.drill`, importable by name in rank processes too: they get this sys.path."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield import_module("drills").drill
    sys.modules.pop("drills")


@pytest.fixture
def without_rounding():
    """Reads a saved report without the figures of its cases that depend on rounding."""

    def read(path):
        report = json.loads(path.read_text())
        report["cases"] = [
            {key: value for key, value in case.items() if not key.startswith("max_error")}
            for case in report["cases"]
        ]
        return report

    return read
