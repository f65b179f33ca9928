"""The engine as judge: one process that has imported a release, for many models and layouts.

What `verify serve` does for a case, less the corruptions that show that a case can fail: those are
a property of the release as it is, which `reach` has measured before.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verify.checks.serve import calibrate, compare
from verify.checks.serve.ended import classify
from verify.checks.serve.session import Engine as Started
from verify.checks.serve.session import Session
from verify.checks.serve.source import locate
from verify.engines.engine import Engine
from verify.engines.layout import ONE, Layout, parse
from verify.engines.registry import engines

LIMIT_S = 40.0
INSIDE = Path(__file__).parent / "inside.py"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How one launch ended: `outcome` and `reason` are serve's, `nats` against the one rank."""

    outcome: str
    nats: float | None = None
    reason: str | None = None
    folder: Path | None = None
    files: Mapping[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Judge:
    """Launches of one release against its own unmutated single rank."""

    engine: Engine
    session: Session
    _models: dict[str, Path] = field(default_factory=dict)
    _ones: dict[str, dict[str, Any]] = field(default_factory=dict)

    def judge(self, model: str, layout: Layout, job: Mapping[str, Any] | None) -> Answer:
        """One launch with `job` (see `inside.py`) done in every rank, or nothing."""
        one = self._one(model)
        outcome, reason = classify(one, engine=self.engine)
        if outcome != "exact":
            return Answer(outcome="cannot-run", reason=f"on one rank: {reason}")
        folder = Path(tempfile.mkdtemp(dir=self.session.folder))
        answer = self._serve(model, layout, patch=_written(job, folder))
        outcome, reason = classify(answer, engine=self.engine)
        files = {path.name: path.read_text("utf-8") for path in sorted(folder.iterdir())}
        files.pop("patch.py", None)
        if outcome != "exact":
            return Answer(outcome=outcome, reason=reason, files=files)
        rows = compare.table(one["ranks"][0]["rows"])
        steps = compare.steps(rows, [rank["rows"] for rank in answer["ranks"]])
        nats = max(steps.values())
        exact = nats <= calibrate.tolerance(one)
        return Answer(outcome="exact" if exact else "diverged", nats=nats, files=files)

    def _one(self, model: str) -> dict[str, Any]:
        if model not in self._ones:
            self._ones[model] = self._serve(model, ONE, changes=calibrate.rounding())
        return self._ones[model]

    def _serve(
        self, model: str, layout: Layout, *, patch: str | None = None, changes: Any = ()
    ) -> dict[str, Any]:
        folder = self._models.get(model)
        if folder is None:
            folder = self.session.folder / model
            written = self.session.run({"write": model, "into": str(folder), "seed": 0}, ranks=0)
            if written.get("prepare") or written.get("lost"):
                return written
            self._models[model] = folder
        ranks = self.engine.ranks(layout)
        request = {
            "model": str(folder),
            "launch": self.engine.command_line(model, str(folder), self.engine.launch(layout)),
            "ranks": ranks,
            "groups": layout.dp,
            "seed": 0,
            "patch": patch,
            "changes": list(changes),
        }
        return self.session.run(request, ranks=ranks, limit=LIMIT_S)


@contextmanager
def opened(release: Path, python: Path) -> Iterator[Judge]:
    """A judge of the release unpacked in `release`; `python` has the engine's packages."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as scratch:
        located = locate(str(release), engines=engines(), scratch=Path(scratch))
        started = Started(
            python=python,
            drive=located.engine.drive,
            source=located.folder,
            variables=located.engine.variables,
        )
        with Session(started) as session:
            yield Judge(engine=located.engine, session=session)


def layout(word: str) -> Layout:
    """`tp2.ep2`, `tp1`."""
    return ONE if word == str(ONE) else parse(word)


def _written(job: Mapping[str, Any] | None, folder: Path) -> str | None:
    if job is None:
        return None
    patch = folder / "patch.py"
    said = json.dumps({**job, "out": str(folder)})
    patch.write_text(f"import json\nJOB = json.loads({said!r})\n{INSIDE.read_text('utf-8')}")
    return str(patch)
