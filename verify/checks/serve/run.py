"""Serves cases one after the other: the one rank once a model and seed, then each layout."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verify.checks.serve import compare
from verify.checks.serve.case import Case, Outcome, Result
from verify.checks.serve.layout import ONE
from verify.checks.serve.session import CASE_S, Session
from verify.engines.engine import Engine

# A layout rounds each product and sum a few times otherwise than one rank does, by 6e-8 each; the
# probe moves every weight by 1e-6 of itself. Ten probes' worth leaves room for deeper sums.
FACTOR = 10.0
PROBE = 1e-6
# a tenth of the smallest divergence that a fault has given: 0.6 nats, LongCat's zero experts
LARGEST = 0.06
# what an engine's own Python says of itself, and of the network it was left, where it does
VERSIONS = ("version", "python", "torch", "transformers", "network")


@dataclass(kw_only=True)
class Judge:
    """Runs cases of an engine in a session; what one rank said is kept by model and seed."""

    engine: Engine
    session: Session
    release: str
    _models: dict[tuple[str, int], Path] = field(default_factory=dict)
    _moved: dict[Case, tuple[float | None, str | None]] = field(default_factory=dict)
    _ones: dict[Case, dict[str, Any]] = field(default_factory=dict)

    def judge(self, case: Case) -> Result:
        """How the case ends; nothing here raises but what stops the whole command."""
        started = time.monotonic()
        launch = (*self.engine.launch(case.layout), *case.arguments)
        one = self._one(case)
        answer = one
        outcome: Outcome
        steps: dict[str, float] = {}
        outcome, reason = classify(one, engine=self.engine)
        if outcome == "exact" and case.layout != ONE:
            answer = self._serve(case)
            outcome, reason = classify(answer, engine=self.engine)
        elif outcome != "exact":
            reason = f"on one rank: {reason}"
        tolerance = None
        if outcome == "exact":
            reference = compare.table(one["ranks"][0]["rows"])
            steps = compare.steps(reference, [rank["rows"] for rank in answer["ranks"]])
            moved, reason = self._conditioning(case, reference)
            tolerance = None if moved is None else FACTOR * moved
            outcome = verdict(max(steps.values()), tolerance)
        worst = max(steps, key=lambda step: steps[step]) if steps else None
        return Result(
            release=self.release,
            case=case,
            launch=launch,
            outcome=outcome,
            dlogprob=steps[worst] if worst else None,
            tolerance=tolerance,
            step=worst,
            steps=steps,
            reason=reason,
            stand_ins=tuple(self.session.hello["stand_ins"]),
            versions={
                name: self.session.hello[name] for name in VERSIONS if name in self.session.hello
            },
            seconds=time.monotonic() - started,
        )

    def _one(self, case: Case) -> dict[str, Any]:
        alone = Case(model=case.model, layout=ONE, seed=case.seed)
        if alone not in self._ones:
            self._ones[alone] = self._serve(alone)
        return self._ones[alone]

    def _conditioning(
        self, case: Case, reference: compare.Table
    ) -> tuple[float | None, str | None]:
        """How far one rank moves, in nats, when each weight moves by 1e-6 of itself; or why not."""
        alone = Case(model=case.model, layout=ONE, seed=case.seed)
        if alone not in self._moved:
            answer = self._serve(alone, probe=PROBE)
            outcome, reason = classify(answer, engine=self.engine)
            if outcome != "exact":
                self._moved[alone] = None, f"the probe of its conditioning: {reason}"
            else:
                steps = compare.steps(reference, [answer["ranks"][0]["rows"]])
                self._moved[alone] = max(steps.values()), None
        return self._moved[alone]

    def _serve(self, case: Case, *, probe: float = 0.0) -> dict[str, Any]:
        folder = self._model(case)
        if isinstance(folder, dict):
            return folder
        words = (*self.engine.launch(case.layout), *case.arguments)
        ranks = self.engine.ranks(case.layout)
        request = {
            "model": str(folder),
            "launch": self.engine.command_line(case.model, str(folder), words),
            "ranks": ranks,
            "groups": case.layout.dp,
            "seed": case.seed,
            "patch": case.patch,
            "probe": probe,
        }
        return self.session.run(request, ranks=ranks)

    def _model(self, case: Case) -> Path | dict[str, Any]:
        key = (case.model, case.seed)
        if key not in self._models:
            folder = self.session.folder / f"{case.model}-{case.seed}"
            request = {"write": case.model, "into": str(folder), "seed": case.seed}
            answer = self.session.run(request, ranks=0)
            if answer.get("prepare") or answer.get("lost"):
                return answer
            self._models[key] = folder
        return self._models[key]


def verdict(distance: float, tolerance: float | None) -> Outcome:
    """`ill-conditioned` where no tolerance is known, or one that could hide a divergence."""
    if tolerance is None or not 0 < tolerance <= LARGEST:
        return "ill-conditioned"
    return "exact" if distance <= tolerance else "diverged"


def classify(answer: dict[str, Any], *, engine: Engine) -> tuple[Outcome, str | None]:
    """How a run ended, `exact` where every rank has rows to compare, and why where not."""
    if answer.get("lost"):
        return "cannot-run", str(answer["lost"])
    failed = answer["prepare"]
    if failed:
        if failed["kind"] == "RefusedError":
            return "refused", _short(failed["error"])
        return "cannot-run", _where(failed, engine.package)
    for said in _words(answer):
        for line in said.splitlines():
            if engine.sizes_differ.search(line):
                return "sizes-differ", _short(line)
    why = _why_not(answer, engine)
    return ("cannot-run", why) if why else ("exact", None)


def _why_not(answer: dict[str, Any], engine: Engine) -> str | None:
    """The first rank that is in the way of a comparison: its own fault before a peer's."""
    ended = (answer["ended"] or {}).get("ranks", [])
    reasons: dict[str, str] = {}
    late = [rank for rank, how in enumerate(ended) if how == "time limit"]
    if late:
        named = ", ".join(map(str, late))
        said = {rank: line for rank in late if (line := _last(answer["said"][rank]))}
        last = next((f"; rank {rank} said last: {line}" for rank, line in said.items()), "")
        return f"waited {CASE_S:g} s for ranks {named}: gave up{last}"
    for rank, result in enumerate(answer["ranks"]):
        if result is None:
            how = ended[rank] if ended else "the case's process ended"
            reasons.setdefault("gone", f"rank {rank} ended without a result: {how}")
        elif result.get("error"):
            kind = "peer" if engine.peer_gone.search(result["error"]) else "own"
            reasons.setdefault(kind, f"rank {rank}: {_where(result, engine.package)}")
        elif result["unfilled"]:
            names = ", ".join(result["unfilled"][:3])
            reasons.setdefault("unfilled", f"rank {rank}: no tensor filled {names}")
    return next(
        (reasons[kind] for kind in ("own", "gone", "peer", "unfilled") if kind in reasons), None
    )


def _words(answer: dict[str, Any]) -> Iterator[str]:
    """What ranks that failed said, in an exception or before a native abort."""
    for result, said in zip(answer["ranks"], answer["said"], strict=True):
        if result is None:
            yield said
        elif result.get("error"):
            yield result["error"]


def _where(failure: dict[str, Any], package: str) -> str:
    """A failure's words, and the innermost place in the engine, `package/folder/file.py:line`."""
    marker = f"/{package}/"
    inside = [frame for frame in failure["frames"] if marker in frame]
    at = f" at {package}/{inside[-1].rpartition(marker)[2]}" if inside else ""
    return f"{_short(failure['error'])}{at}"


def _last(text: str) -> str:
    return text.strip().splitlines()[-1][:200] if text.strip() else ""


def _short(text: str) -> str:
    return text.strip().splitlines()[0][:300] if text.strip() else "no reason given"
