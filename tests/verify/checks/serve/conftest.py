"""`serve` with a toy engine: its source is the samples' folder, its Python this one."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from verify import _cli
from verify.checks.serve import command
from verify.engines.sglang.serving import ENGINE

SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture
def serve(monkeypatch, tmp_path):
    """Runs a command line; `serve.ran()` are the model, ranks and launch of each run so far."""
    count = tmp_path / "count"
    toy = replace(
        ENGINE,
        name="toy",
        home=SAMPLES / "toyengine",
        package="toyengine",
        drive="toyserver",
        variables={"COUNT": str(count)},
        command_line=lambda model, folder, words: list(words),
        sizes_differ=re.compile("sizes differ"),
    )
    monkeypatch.setattr(command, "engines", lambda: (toy,))

    def run(*words):
        output = tmp_path / "report.json"
        whole = ["serve", SAMPLES, "--python", sys.executable, "--format", "json"]
        code = _cli.main([*map(str, [*whole, "--output", output, *words])])
        run.report = json.loads(output.read_text()) if code < 2 else None
        return code

    run.ran = lambda: count.read_text().splitlines() if count.exists() else []
    run.engine = toy
    return run
