"""From cases to a report: what ran, what was wrong, what was real and what was replaced."""

import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from verify.checks.replay.agreement import Statics, against_prove, against_scan, read_statics
from verify.checks.replay.decoders import Decoder, Models
from verify.checks.replay.deployments import Execution, row_of
from verify.checks.replay.offered import offered
from verify.checks.replay.processes import Case, run_cases
from verify.emulator.tree import SourceFiles
from verify.engines.sources import open_source
from verify.errors import VerifyError
from verify.report.ending import StoppedError
from verify.report.excerpts import excerpts
from verify.report.progress import track
from verify.report.render.words import counted
from verify.report.report import NOT_ANALYSED, Finding, Json, Report, TableSection
from verify.source.revision import revision_of
from verify.source.source import check_name

Result = tuple[Case, dict[str, Any]]
_WHAT = {
    "double": "counted more than once: {parts}",
    "missing": "not counted by every rank: {parts}",
    "mixed": "counted too often in part and too rarely in part, or over other tokens: {parts}",
}
CANNOT = "cannot run"
NOTHING_STATIC = Statics(subjects=(), release=None, findings={})
MOST_REASONS = 3
MOST_ROWS = 12  # of a table that everybody is shown
MOST_TEXT = 240
WRONG = ("double", "missing", "mixed", "wrong tokens", "hang", "crash")


def survey(
    source: str,
    *,
    models: tuple[str, ...],
    deployments: tuple[Execution, ...],
    variables: Mapping[str, str],
    jobs: int,
) -> Report:
    """Run every model on every deployment it supports, with `variables` in its environment.

    Raises `VerifyError`; told to end, `StoppedError` with what has been done by then.
    """
    location = _local(source)
    with open_source(location, below="") as tree:
        found = Models(SourceFiles(tree))
        unknown = sorted(set(models) - set(found.names))
        if unknown:
            raise VerifyError(f"no model {', '.join(unknown)} in {source}")
        layers = [
            decoder
            for model in models or found.names
            for decoder in (found.asked_for(model) if models else found.decoders(model))
        ]
        deployments = offered(deployments, found.files, source=source)
        about: dict[str, Json] = {
            "name": tree.name,
            "version": tree.version,
            "generation": tree.generation,
        }
    # a server's ranks start once for all layers, and build a layer once for all batches
    servers: dict[Execution, list[Execution]] = {}
    for deployment in deployments:
        servers.setdefault(deployment.server, []).append(deployment)
    batches = [cases for cases in (_cases(layers, alike) for alike in servers.values()) if cases]
    if not batches:
        raise VerifyError(f"no decoder layer that can be executed in {', '.join(models) or source}")
    total = sum(map(len, batches))
    results: list[Result] = []
    stopped: KeyboardInterrupt | None = None
    try:
        ran = run_cases(location, batches, variables=variables, jobs=jobs)
        for result in track(ran, what="cases replayed", total=total):
            results.append(result)
    except KeyboardInterrupt as error:
        if not results:
            raise
        stopped = error
    # they come as they are done
    order = {decoder: place for place, decoder in enumerate(layers)}
    places = {deployment: place for place, deployment in enumerate(deployments)}
    results.sort(key=lambda result: (order[result[0].decoder], places[result[0].deployment]))
    if stopped is not None:
        report = _report(results, NOTHING_STATIC, source=about, named=models)
        raise StoppedError(_part(report, done=len(results), total=total), stopped)
    _some_ran(results, source)
    with open_source(location) as tree:
        report = _report(results, read_statics(tree), source=about, named=models)
        # the layer's first line: where in it something is wrong, a run does not say
        code, web = excerpts(tree, report.findings), tree.package.web(tree.version)
    return replace(report, code=code, web=web)


def _part(report: Report, *, done: int, total: int) -> Report:
    """The report, saying that it is of some cases only."""
    what = f"stopped after {done} of {total} cases"
    missed = Finding(
        rule=NOT_ANALYSED,
        subject="the cases that did not run",
        message=f"{what}: nothing is known of the others",
        fix="run it to its end, or name models with --model",
    )
    return replace(report, summary=f"{what}; {report.summary}", findings=(*report.findings, missed))


def _some_ran(results: Sequence[Result], source: str) -> None:
    """Raises `VerifyError` where not one case could run: nothing was looked at."""
    why = _reasons(results)
    if why.total() == len(results):
        shown = "; ".join(
            f"{count} x {textwrap.shorten(reason, MOST_TEXT, placeholder=' ...')}"
            for reason, count in why.most_common(MOST_REASONS)
        )
        raise VerifyError(f"{source}: none of {len(results)} cases could run: {shown}")


def _reasons(results: Sequence[Result]) -> Counter[str]:
    """Why cases could not run, each reason with how many; a reason is one line."""
    return Counter(" ".join(str(out["why"]).split()) for _, out in results if out["kind"] == CANNOT)


def _local(source: str) -> str:
    """Where the source lies on this machine; children have no network to fetch it."""
    check_name(source)
    if Path(source).exists():
        return str(Path(source).resolve())
    revision = revision_of(source)
    if revision is not None:
        return f"{revision.checkout.resolve()}@{revision.commit}"
    from verify.engines.sources import fetch  # noqa: PLC0415 (only a requirement needs it)

    return str(fetch(source))


def _cases(layers: Sequence[Decoder], deployments: Sequence[Execution]) -> list[Case]:
    """Attention data parallelism needs a communicator; a model without one cannot have it."""
    return [
        Case(decoder=decoder, deployment=deployment)
        for decoder in layers
        for deployment in deployments
        if decoder.boundary or not deployment.config.enable_dp_attention
    ]


def _report(
    results: Sequence[Result], statics: Statics, *, source: dict[str, Json], named: Sequence[str]
) -> Report:
    """`named` are the models asked for by name: one that could not run at all is a finding."""
    findings = (*_findings(results), *_not_analysed(results, named))
    why = _reasons(results)
    kinds = Counter(out["kind"] for _, out in results)
    said = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    beside_prove, disagreements = against_prove(results, statics)
    return Report(
        command="replay",
        title=f"{source['name']} {source['version']}, executed",
        summary=(
            f"{len(results)} cases executed: {said}; {counted(len(findings), 'finding')}; "
            f"{len(disagreements)} disagreements with prove"
            + "".join(
                f"; cannot run, {count}: {textwrap.shorten(reason, MOST_TEXT, placeholder=' ...')}"
                for reason, count in why.most_common(MOST_REASONS)
            )
        ),
        payload={
            "source": source,
            "cases": [_case(case, out) for case, out in results],
            "disagreements": disagreements,
            "cannot_run": dict(why.most_common()),
            "replaced": _replaced(results),
        },
        sections=shortened(
            _kinds(results),
            beside_prove,
            against_scan(results, statics),
            *_cannot(results),
            *_without_experts(results),
            _substitutes(results),
        ),
        findings=findings,
    )


def _case(case: Case, out: dict[str, Any]) -> dict[str, Json]:
    return {
        "subject": subject_of(case.decoder),
        "deployment": case.deployment.as_json(),
        "row": row_of(case.deployment, out.get("published")),
        "kind": out["kind"],
        "counts": out["counts"],
        "max_error": out["max_error"],
        "why": out["why"],
        "producers": out.get("producers", {}),
    }


def subject_of(decoder: Decoder) -> str:
    """`model/Class`, as ids of sites begin."""
    return f"{decoder.model}/{decoder.cls}"


def _findings(results: Sequence[Result]) -> Iterator[Finding]:
    """One a layer, kind and set of producers: its first deployment, and how many more there are."""
    alike: dict[tuple[Decoder, str, tuple[str, ...]], list[Result]] = {}
    for case, out in results:
        if out["kind"] in WRONG:
            alike.setdefault((case.decoder, out["kind"], _wrong_parts(out)), []).append((case, out))
    for (decoder, kind, parts), members in alike.items():
        case, out = members[0]
        sizes = ", ".join(f"{key}={value}" for key, value in case.deployment.as_json().items())
        more = f" (and {len(members) - 1} more deployments)" if len(members) > 1 else ""
        what = _WHAT[kind].format(parts=", ".join(parts)) if kind in _WHAT else str(out["why"])
        counts = out["counts"]
        yield Finding(
            rule=f"replay-{kind.replace(' ', '-')}",
            message=f"{decoder.cls} with {sizes}{more}: {what}",
            subject=subject_of(decoder),
            kind=kind,
            file=decoder.file,
            line=decoder.line,
            cls=decoder.cls,
            row=row_of(case.deployment, out.get("published")),
            deployment=case.deployment.as_json(),
            counts=counts and tuple(tuple(round(number) for number in row) for row in counts),
        )


def _not_analysed(results: Sequence[Result], named: Sequence[str]) -> Iterator[Finding]:
    """Layers of models asked for by name of which not one case ran."""
    for decoder in dict.fromkeys(
        case.decoder for case, _ in results if case.decoder.model in named
    ):
        own = [(case, out) for case, out in results if case.decoder == decoder]
        why = _reasons(own)
        if why.total() == len(own):
            (reason, _), *_ = why.most_common()
            yield Finding(
                rule=NOT_ANALYSED,
                kind=NOT_ANALYSED,
                message=f"{subject_of(decoder)}: none of {len(own)} cases could run: {reason}",
                fix="ask for what can run, or accept this entry in a baseline",
                subject=subject_of(decoder),
                file=decoder.file,
                line=decoder.line,
                cls=decoder.cls,
            )


def _wrong_parts(out: dict[str, Any]) -> tuple[str, ...]:
    """The producers that are wrong, `*` for the layer's number."""
    wrong = {name for name, kind in out.get("producers", {}).items() if kind != "exact"}
    return tuple(sorted({re.sub(r"\d+", "*", name) for name in wrong}))


def shortened(*tables: TableSection) -> tuple[TableSection, ...]:
    """The tables that say something; long ones for those who ask for all, here how long they are.

    What is true of every result stands below, with the long ones or without.
    """
    told = [table for table in tables if table.rows]
    long = [table for table in told if len(table.rows) > MOST_ROWS]
    short = [table for table in told if table not in long]
    if not long:
        return tuple(short)
    counts = TableSection(
        title="Tables that --all shows",
        columns=("table", "lines"),
        rows=tuple((table.title, f"{len(table.rows):,}") for table in long),
        notes=tuple(note for table in long for note in table.notes),
    )
    return (*short, *(replace(table, notes=(), more=True) for table in long), counts)


def _kinds(results: Sequence[Result]) -> TableSection:
    """One line a model: how its deployments ended."""
    columns = ("exact", "double", "missing", "mixed", "other", "cannot run")
    lines = []
    for decoder in dict.fromkeys(case.decoder for case, _ in results):
        kinds = Counter(out["kind"] for case, out in results if case.decoder == decoder)
        other = sum(count for kind, count in kinds.items() if kind not in columns)
        cells = {**kinds, "other": other}
        lines.append((subject_of(decoder), *(str(cells.get(name, 0)) for name in columns)))
    return TableSection(
        title="Deployments by outcome", columns=("layer", *columns), rows=tuple(lines)
    )


def _cannot(results: Sequence[Result]) -> Iterator[TableSection]:
    reasons = {
        (subject_of(case.decoder), out["why"]): None
        for case, out in results
        if out["kind"] == CANNOT
    }
    if reasons:
        yield TableSection(
            title="What could not be executed, and what was missing",
            columns=("layer", "why"),
            rows=tuple(reasons),
        )


def _without_experts(results: Sequence[Result]) -> Iterator[TableSection]:
    """Layers of which the configuration made dense ones only: nothing was seen of their experts."""
    ran: dict[str, set[str]] = {}
    for case, out in results:
        ran.setdefault(subject_of(case.decoder), set()).update(out.get("producers", {}))
    dense = [
        name
        for name, parts in ran.items()
        if parts and not any(part.endswith("experts") for part in parts)
    ]
    if dense:
        yield TableSection(
            title="Layers that ran without experts",
            columns=("layer",),
            rows=tuple((name,) for name in dense),
        )


def _replaced(results: Sequence[Result]) -> dict[str, Json]:
    """Each once; where deployments differ in what stands there, the first in the alphabet."""
    merged: dict[str, Json] = {}
    for _, out in results:
        for name, what in out.get("replaced", {}).items():
            merged[name] = min(str(merged.get(name, what)), what)
    return dict(sorted(merged.items()))


def _cages(results: Sequence[Result]) -> tuple[str, ...]:
    networks = sorted({out["network"] for _, out in results if "network" in out})
    return tuple(f"The child processes' network: {network}." for network in networks)


def _substitutes(results: Sequence[Result]) -> TableSection:
    executed = {where for _, out in results for where in out.get("executed", ())}
    return TableSection(
        title="What was replaced",
        columns=("definition", "by"),
        rows=tuple((name, str(what)) for name, what in _replaced(results).items()),
        notes=(
            f"{len(executed)} top-level definitions of the source were executed unchanged.",
            "Attention is replaced by zeros; norms add the residual and pass the sum on.",
            *_cages(results),
        ),
    )
