"""Outcomes as the report that every renderer of `verify` can show."""

from collections import Counter
from collections.abc import Mapping, Sequence

from gpu_tests.judge import SEVERITY
from gpu_tests.outcome import Outcome
from verify.report import Json, Report, Section, TableSection

KINDS = tuple(reversed(SEVERITY))
MAX_EXAMPLES = 1


def make_report(
    outcomes: Sequence[Outcome],
    *,
    world_size: int,
    backend: str,
    experts: str = "",
    ran_on: Mapping[str, Json] | None = None,
) -> Report:
    """`outcomes` in the order they were run; `experts` says on what the experts ran."""
    findings = tuple(outcome.finding() for outcome in outcomes if outcome.problem)
    kinds = Counter(outcome.kind for outcome in outcomes)
    tally = ", ".join(f"{kinds[kind]} {kind}" for kind in KINDS if kinds[kind])
    verdict = f"{len(findings)} not as the ledger says" if findings else "all as the ledger says"
    return Report(
        command="gpu_tests",
        title=f"Real layers on {world_size} {backend} ranks",
        summary=f"{len(outcomes)} cases on {world_size} ranks: {tally or 'none'}; {verdict}",
        payload={
            "machine": ran_on,
            "world_size": world_size,
            "backend": backend,
            "experts": experts,
            "cases": [outcome.as_json() for outcome in outcomes],
        },
        sections=(_subjects(outcomes, experts), *_examples(outcomes)),
        findings=findings,
    )


def _subjects(outcomes: Sequence[Outcome], experts: str) -> TableSection:
    """A line for each block and dtype: its cases by kind, and how close the exact ones are."""
    lines: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        lines.setdefault((outcome.case.subject, outcome.case.dtype), []).append(outcome)
    rows = []
    for (subject, dtype), members in lines.items():
        kinds = Counter(member.kind for member in members)
        exact = [member.error for member in members if member.kind == "exact"]
        wrong = sum(bool(member.problem) for member in members)
        rows.append(
            (
                subject,
                dtype,
                *(str(kinds[kind]) for kind in KINDS),
                f"{max(exact):.2f}" if exact else "",
                str(wrong),
            )
        )
    return TableSection(
        title="Cases by block",
        columns=("block", "dtype", *KINDS, "worst exact", "disagree"),
        rows=tuple(rows),
        notes=(
            "`worst exact` is the largest deviation of an exact case from one rank's float64 "
            "answer, in units of the tolerance that follows from dtype and order of summation.",
            *([experts] if experts else []),
        ),
    )


def _examples(outcomes: Sequence[Outcome]) -> tuple[Section, ...]:
    """Of everything that is not exact, the first of each kind and row."""
    first: dict[tuple[str, str], Outcome] = {}
    for outcome in outcomes:
        if outcome.kind not in ("exact", "crash"):
            first.setdefault((outcome.kind, outcome.case.row), outcome)
    if not first:
        return ()
    rows = tuple(
        (
            outcome.case.row,
            outcome.verdict,
            outcome.case.subject,
            _sizes(outcome),
            f"{outcome.relative_error:.2g}",
        )
        for _, outcome in sorted(first.items())
    )
    return (
        TableSection(
            title="Known failures, seen on ranks",
            columns=("row", "verdict", "block", "deployment", "error / rms"),
            rows=rows,
            notes=(
                "One example of each kind and row; every one of them is the ledger's verdict too.",
            ),
        ),
    )


def _sizes(outcome: Outcome) -> str:
    return " ".join(f"{name}={value}" for name, value in outcome.case.deployment.as_json().items())
