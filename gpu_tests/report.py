"""Outcomes as the report that every renderer of `verify` can show."""

from collections import Counter
from collections.abc import Mapping, Sequence

from gpu_tests.causes import Cause
from gpu_tests.judge import SEVERITY
from gpu_tests.outcome import Outcome
from verify.checks.prove.findings import in_words
from verify.report.render.words import counted
from verify.report.report import Json, Report, Section, TableSection

KINDS = tuple(reversed(SEVERITY))


def make_report(
    outcomes: Sequence[Outcome],
    *,
    causes: Sequence[Cause] = (),
    world_size: int,
    backend: str,
    kernels: str = "",
    ran_on: Mapping[str, Json] | None = None,
) -> Report:
    """`outcomes` in the order they were run; `kernels` says on what the layers ran.

    `causes` are the ledger's, to be seen among the outcomes.
    """
    findings = tuple(outcome.finding() for outcome in outcomes if outcome.problem)
    kinds = Counter(outcome.kind for outcome in outcomes)
    tally = ", ".join(f"{kinds[kind]} {kind}" for kind in KINDS if kinds[kind])
    verdict = f"{len(findings)} not as the ledger says" if findings else "all as the ledger says"
    seen = [_seen(cause, outcomes) for cause in causes]
    if causes:
        verdict += f"; {sum(map(bool, seen))} of {len(causes)} causes of prove seen"
    return Report(
        command="gpu_tests",
        title=f"Real layers on {counted(world_size, f'{backend} rank')}",
        summary=f"{len(outcomes)} cases on {counted(world_size, 'rank')}: "
        f"{tally or 'none'}; {verdict}",
        payload={
            "machine": ran_on,
            "world_size": world_size,
            "backend": backend,
            "kernels": kernels,
            "cases": [outcome.as_json() for outcome in outcomes],
            "causes": [_cause(*each) for each in zip(causes, seen, strict=True)],
        },
        sections=(
            _subjects(outcomes, kernels),
            *(_causes(causes, seen) if causes else _examples(outcomes)),
            _coverage(outcomes),
        ),
        findings=findings,
    )


def _subjects(outcomes: Sequence[Outcome], kernels: str) -> TableSection:
    """A line for each block and dtype: its cases by kind, and how close the exact ones are."""
    lines: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        lines.setdefault((outcome.case.subject, outcome.case.dtype), []).append(outcome)
    unprepared = any(outcome.kind == "not prepared" for outcome in outcomes)
    shown = [kind for kind in KINDS if kind != "not prepared" or unprepared]
    rows = []
    for (subject, dtype), members in lines.items():
        kinds = Counter(member.kind for member in members)
        exact = [member.error for member in members if member.kind == "exact"]
        wrong = sum(bool(member.problem) for member in members)
        rows.append(
            (
                subject,
                dtype,
                *(str(kinds[kind]) for kind in shown),
                f"{max(exact):.2f}" if exact else "",
                str(wrong),
            )
        )
    return TableSection(
        title="Cases by block",
        columns=("block", "dtype", *shown, "worst exact", "disagree"),
        rows=tuple(rows),
        notes=(
            "`worst exact` is the largest deviation of an exact case from one rank's float64 "
            "answer, in units of the tolerance that follows from dtype and order of summation.",
            *([kernels] if kernels else []),
            *_on_the_kernel(outcomes),
        ),
    )


def _on_the_kernel(outcomes: Sequence[Outcome]) -> list[str]:
    count = sum(outcome.fused_norm for outcome in outcomes)
    return [f"The fused kernel made the sum of {count} cases."] if count else []


def _seen(cause: Cause, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes that show the cause: the ledger's kind and counts, in every precision run."""
    own = [
        outcome
        for outcome in outcomes
        if (outcome.case.subject, outcome.case.guard) == (cause.subject, cause.guard)
        and outcome.case.deployment == cause.story.deployment
    ]
    same = all(not outcome.problem and outcome.ledger == cause.story.verdict for outcome in own)
    return own if same else []


def _cause(cause: Cause, seen: Sequence[Outcome]) -> dict[str, Json]:
    return {
        "kind": cause.story.verdict.kind,
        "row": cause.story.verdict.row,
        "deployment": cause.story.deployment.as_json(),
        "subject": cause.subject,
        "guard": cause.guard,
        "dtypes": [outcome.case.dtype for outcome in seen],
        "why_not": cause.why_not,
    }


def _causes(causes: Sequence[Cause], seen: Sequence[Sequence[Outcome]]) -> tuple[Section, ...]:
    """Every failing deployment that the ledger finds, and what ranks show in it."""
    rows = tuple(
        (
            shown[0].verdict if shown else cause.why_not or "not seen",
            cause.story.verdict.row,
            f"{cause.subject} ({cause.guard})" if cause.subject else "",
            in_words(cause.story.deployment),
            _shown_by(shown),
        )
        for cause, shown in zip(causes, seen, strict=True)
    )
    return (
        TableSection(
            title="Failing deployments that the ledger finds, seen on ranks",
            columns=("verdict", "row", "block (guard)", "deployment", "error / rms, or what stops"),
            rows=rows,
            notes=(
                "Each is the smallest deployment of a cause that `python -m verify prove` lists. "
                "Its verdict stands here where all ranks have the ledger's kind and counts, in "
                "every precision that was run.",
            ),
        ),
    )


def _shown_by(seen: Sequence[Outcome]) -> str:
    """How far the values are off, or why there are none."""
    if not seen:
        return ""
    return seen[0].why or f"{max(outcome.relative_error for outcome in seen):.2g}"


def _coverage(outcomes: Sequence[Outcome]) -> TableSection:
    """What the cases are made of."""
    cases = [outcome.case for outcome in outcomes]
    sizes = [case.deployment.config for case in cases]
    axes: Mapping[str, Sequence[str]] = {
        "producer": [case.producer for case in cases],
        "tokens at the MLP": [case.mode for case in cases],
        "all-to-all backend": [config.moe_a2a_backend for config in sizes],
        "fused all-reduce": [case.deployment.fusion for case in cases],
        "shared experts": [case.deployment.shared for case in cases],
        "ep x moe_tp x moe_dp": [
            f"{each.ep_size}x{each.moe_tp_size}x{each.moe_dp_size}" for each in sizes
        ],
        "dp x cp x attention tp": [
            f"{each.attn_dp_size}x{each.attn_cp_size}x{each.attn_tp_size}" for each in sizes
        ],
    }
    rows = tuple(
        (axis, ", ".join(f"{value} {count}" for value, count in Counter(values).most_common()))
        for axis, values in axes.items()
    )
    return TableSection(title="Coverage", columns=("axis", "cases by value"), rows=rows)


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
            in_words(outcome.case.deployment),
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
