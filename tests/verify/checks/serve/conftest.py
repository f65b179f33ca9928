"""`serve` with a toy engine: its source is the samples' folder, its Python this one."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from verify.checks.serve import session, sweep
from verify.cli import command_line

SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture
def serve(monkeypatch, tmp_path):
    """Runs a command line; `serve.ran()` are the model, ranks and launch of each run so far."""
    ran = []

    class Counted(session.Session):
        def run(self, case, **limits):
            if "model" in case:
                launch = " ".join(case["launch"])
                ran.append(f"{Path(case['model']).name} {case['ranks']} {launch}")
            return super().run(case, **limits)

    toy = runpy.run_path(str(SAMPLES / "toyrun.py"))["toy"]()
    monkeypatch.setattr(sweep, "Session", Counted)
    monkeypatch.setattr(sweep, "engines", lambda: (toy,))

    def run(*words):
        output = tmp_path / "report.json"
        whole = ["serve", SAMPLES, "--python", sys.executable, "--format", "json"]
        code = command_line.main([*map(str, [*whole, "--output", output, *words])])
        run.report = json.loads(output.read_text()) if code < 2 else None
        return code

    run.ran = lambda: list(ran)
    run.engine = toy
    return run
