import sys
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def drills_can_be_imported(monkeypatch):
    # rank processes get this process's sys.path, and import what they run by name
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    sys.modules.pop("drills", None)
