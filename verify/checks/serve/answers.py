"""`--findings`: what the engine itself says to each finding of a saved report."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from verify.checks.serve.case import Case, Result
from verify.engines.engine import Asked, Engine
from verify.report.report import Finding, Json
from verify.report.saved import finding_from, findings_of, load

CONFIRMED, REFUTED, REFUSED, CANNOT = "confirmed", "refuted", "refused", "cannot run"
SAID = (CONFIRMED, REFUTED, REFUSED, CANNOT)


@dataclass(frozen=True, kw_only=True)
class Question:
    """A finding and the cases that would show it, none where `why_not` says why."""

    finding: Finding
    cases: tuple[Case, ...]
    why_not: str = ""


def questions(
    file: Path, *, engine: Engine, models: Sequence[str] | None, seed: int, patch: str | None
) -> list[Question]:
    """A question a finding of the saved report; with `models`, of findings that name one of them.

    Raises `VerifyError` for a file that is no report.
    """
    asked = []
    for entry in findings_of(load(file), file):
        want = engine.asked(entry)
        named = [model for model in want.models if not models or model in models]
        if named or not models:
            finding = finding_from(entry, file)
            asked.append(_question(finding, want, named, seed=seed, patch=patch))
    return asked


def _question(
    finding: Finding, want: Asked, models: Sequence[str], *, seed: int, patch: str | None
) -> Question:
    cases = (
        Case(model=model, layout=layout, seed=seed, arguments=want.arguments, patch=patch)
        for model in models
        for layout in want.layouts
    )
    return Question(
        finding=finding, cases=() if want.why_not else tuple(cases), why_not=want.why_not
    )


def answered(
    question: Question, *, source: str, serve: Callable[[Case], Result]
) -> tuple[Finding, list[Result]]:
    """The finding with what the engine said, and the results that say so.

    Cases run until one confirms. All that ran were exact: refuted, which says that these launches
    of a tiny model do not show it and no more.
    """
    results: list[Result] = []
    for case in question.cases:
        results.append(serve(case))
        if said_of(results[-1], question.finding) == CONFIRMED:
            break
    if not results:
        answer: Mapping[str, Json] = {"command": None, "said": CANNOT, "why": question.why_not}
    else:
        said = {said_of(result, question.finding): result for result in reversed(results)}
        word = next(word for word in SAID if word in said)
        result = said[word]
        answer = {"command": command(result.case, source), "said": word, "why": _why(result)}
    return replace(question.finding, serve=answer), results


def said_of(result: Result, finding: Finding) -> str:
    """One result as an answer to the finding."""
    if result.outcome == "diverged" or (
        result.outcome == "sizes-differ" and finding.kind == "crash"
    ):
        return CONFIRMED
    return {"exact": REFUTED, "refused": REFUSED}.get(result.outcome, CANNOT)


def command(case: Case, source: str) -> str:
    """The command line that runs the case."""
    words = ["serve", source, "--model", case.model, "--layout", str(case.layout)]
    words += ["--seed", str(case.seed)] if case.seed else []
    words += ["--patch", case.patch] if case.patch else []
    words += ["--", *case.arguments] if case.arguments else []
    return f"python -m verify {shlex.join(words)}"


def _why(result: Result) -> str:
    if result.outcome == "diverged":
        return f"{result.dlogprob:.3g} nats in {result.step}"
    if result.outcome == "exact":
        return f"within {result.tolerance:.2g} nats in every step"
    return f"{result.outcome}: {result.reason or 'no reason given'}"
