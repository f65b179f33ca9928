"""`serve` with a toy engine: its source is the samples' folder, its Python this one."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from verify.checks.serve import compare, session, sweep
from verify.checks.serve.ended import classify
from verify.cli import command_line
from verify.engines.inside.checkpoint import REFERENCE

SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture(scope="session")
def parked():
    """Toy engines that a test is done with, by what started them: the next one takes it on.

    To start is what takes the time; each case is run in forks of its own.
    """
    left = {}
    yield left
    for each in left.values():
        session.Session.close(each)


@pytest.fixture
def serve(monkeypatch, tmp_path, parked):
    """Runs a command line; `serve.ran()` are the model, ranks and launch of each run so far."""
    ran = []

    class Counted(session.Session):
        def __init__(self, engine):
            super().__init__(engine)
            left = parked.pop(repr(engine), None)
            if left is not None:
                self.__dict__.update(left.__dict__)

        def close(self):
            key = repr(self._engine)
            if key in parked or not self._engine.caged or self._process is None:
                super().close()
                return
            for made in self.folder.iterdir():
                if made.is_dir():
                    shutil.rmtree(made)
            parked[key] = session.Session(self._engine)
            parked[key].__dict__.update(self.__dict__)
            self._process = self._folder = None

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


@pytest.fixture
def distance():
    """Largest difference in nats between an engine's one rank and transformers, by model."""

    def nats(session, model, *, engine, patch=None):
        folder = session.folder / model
        if not folder.exists():
            answer = session.run({"write": model, "into": str(folder), "seed": 0}, ranks=0)
            assert not answer.get("lost"), answer
            assert not answer["prepare"], answer["prepare"]
        case = {
            "model": str(folder),
            "launch": engine.command_line(model, str(folder), ["--load-format=auto"]),
            "ranks": 1,
            "groups": 1,
            "seed": 0,
            "patch": patch,
            "changes": [],
        }
        answer = session.run(case, ranks=1)
        assert classify(answer, engine=engine) == ("exact", None)
        reference = compare.table(json.loads((folder / REFERENCE).read_text("utf-8")))
        return max(compare.steps(reference, [rank["rows"] for rank in answer["ranks"]]).values())

    return nats
