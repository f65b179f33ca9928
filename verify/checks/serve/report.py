"""Results as a report: nothing is a pass except exact."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from verify.checks.serve.answers import SAID
from verify.checks.serve.case import OUTCOMES, Result
from verify.checks.serve.results import Subject
from verify.errors import VerifyError
from verify.report.report import NOT_ANALYSED, Finding, Json, Report, TableSection

WRONG = ("diverged", "sizes-differ")


def report(
    results: Sequence[Result],
    *,
    engine: str,
    subject: Subject,
    named: bool,
    beside: Mapping[str, Json] | None = None,
) -> Report:
    """`named`: the cases were asked for by name, so that one that cannot run is a finding.

    `beside` is what another wheel has of the source, None where nobody asked.

    Raises `VerifyError` when none was judged.
    """
    ran = [result for result in results if result.outcome in ("exact", *WRONG)]
    if not ran:
        why = what(results[0]) if results else "no model and layout was chosen"
        raise VerifyError(f"serve: none of {len(results)} cases ran: {why}")
    counts = Counter(result.outcome for result in results)
    told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
    release = results[0].release
    return Report(
        command="serve",
        title=f"{release}: several ranks against one",
        summary=f"serve: {release}: {told}",
        payload={
            **_payload(results, release=release, engine=engine, subject=subject),
            **({"against": dict(beside)} if beside else {}),
        },
        sections=tuple(_sections(results)),
        findings=tuple(_findings(results, named=named)),
    )


def _payload(
    results: Iterable[Result], *, release: str, engine: str, subject: Subject
) -> dict[str, Json]:
    return {
        "source": {
            "engine": engine,
            "version": release.removeprefix(f"{engine} "),
            "digest": subject.source,
        },
        "builder": subject.builder,
        "cases": [result.as_json() for result in results],
    }


def answers_report(
    answered: Sequence[tuple[Finding, Sequence[Result]]], *, engine: str, subject: Subject
) -> Report:
    """The findings again, each with what the engine said, and the cases that it said it in.

    Raises `VerifyError` when there was nothing to ask about.
    """
    if not answered:
        raise VerifyError("serve --findings: the report has no finding of such a model")
    findings = [finding for finding, _ in answered]
    answers = [finding.serve or {} for finding in findings]
    ran = {result.case: result for _, results in answered for result in results}
    counts = Counter(str(answer.get("said")) for answer in answers)
    told = ", ".join(f"{counts[said]} {said}" for said in SAID if counts[said])
    release = next((result.release for result in ran.values()), engine)
    return Report(
        command="serve",
        title=f"{release}: its own answer to each finding",
        summary=f"serve: {release}: {told}",
        payload=_payload(ran.values(), release=release, engine=engine, subject=subject),
        sections=(
            TableSection(
                title="What the engine says",
                columns=("finding", "row", "answer", "why"),
                rows=tuple(
                    (
                        f"{finding.rule} {finding.subject}",
                        finding.row or "",
                        str(answer.get("said")),
                        str(answer.get("why") or ""),
                    )
                    for finding, answer in zip(findings, answers, strict=True)
                ),
                notes=("Refuted: these launches of a tiny model do not show it.",),
            ),
        ),
        findings=tuple(findings),
    )


def _findings(results: Sequence[Result], *, named: bool) -> Iterator[Finding]:
    for result in results:
        rule = f"serve-{result.outcome}" if result.outcome in WRONG else None
        if rule is None and named and result.outcome in ("cannot-run", "ill-conditioned"):
            rule = NOT_ANALYSED
        if rule is not None:
            yield Finding(
                rule=rule,
                message=f"{result.case.model} on {result.case.layout}: {what(result)}",
                subject=f"{result.case.model}:{result.case.layout}",
                kind=result.outcome,
                deployment={"layout": str(result.case.layout), "launch": list(result.launch)},
            )


def what(result: Result) -> str:
    """How far it diverged and where, or why it was not compared."""
    if result.outcome == "diverged":
        where = ", ".join(f"{step} {value:.2g}" for step, value in result.steps.items())
        return f"{result.dlogprob:.3g} nats from one rank ({where}); {_fault(result)}"
    said = result.reason or result.outcome
    return f"{said}; {_fault(result)}" if result.accused else said


def _fault(result: Result) -> str:
    """The first module at fault and what it is, as far as can be told."""
    accused = result.accused
    if result.module is None:
        return f"no module is named: {accused.get('what')}"
    place = f"first in {result.module}"
    rows = accused.get("rows")
    if isinstance(rows, list):
        place += f", {accused['step']}, rank {accused['rank']}, {rows[0]} of {rows[1]} rows"
    return f"{place}: {accused['what']}" if accused.get("what") else place


def _sections(results: Sequence[Result]) -> Iterator[TableSection]:
    yield TableSection(
        title="Several ranks against one, in nats",
        columns=("model", "layout", "seed", "outcome", "nats", "tolerance", "step"),
        rows=tuple(
            (
                result.case.model,
                str(result.case.layout),
                str(result.case.seed),
                result.outcome,
                "" if result.dlogprob is None else f"{result.dlogprob:.2g}",
                "" if result.tolerance is None else f"{result.tolerance:.2g}",
                result.step or "",
            )
            for result in results
        ),
    )
    moved = {
        (result.case.model, str(result.case.seed), f"{result.patch_moves:.2g}")
        for result in results
        if result.patch_moves is not None
    }
    if moved:
        yield TableSection(
            title="How far the patch moves one rank, in nats",
            columns=("model", "seed", "nats"),
            rows=tuple(sorted(moved)),
            notes=("A repair of a sum moves nothing there.",),
        )
    reasons = {(r.case.model, str(r.case.layout)): what(r) for r in results if r.reason}
    if reasons:
        yield TableSection(
            title="Why a case was not compared",
            columns=("model", "layout", "why"),
            rows=tuple((*key, why) for key, why in reasons.items()),
        )
    for result in results:
        if result.case.thorough and result.corruptions:
            yield TableSection(
                title=f"Corruptions of {result.case.model} on {result.case.layout}",
                columns=("where", "how", "seen", "nats"),
                rows=tuple(
                    (
                        str(each["where"]),
                        str(each["how"]),
                        str(each["seen"]),
                        _nats(each["nats"]),
                    )
                    for each in result.corruptions
                ),
                notes=(
                    "Unused: not a number in its place changes nothing either.",
                    "In-module: log-probabilities hide it, a module's value shows it.",
                ),
            )


def _nats(value: Json) -> str:
    return f"{value:.2g}" if isinstance(value, float | int) else ""
