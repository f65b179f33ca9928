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
