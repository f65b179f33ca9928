"""Do the static checks say the same? What ran, beside what `prove` and `scan` said of it.

`prove` speaks about a block's routed experts on one deployment, `scan` about a file in a row of
flags. Both are asked about the source that was executed; neither sees the results.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from verify.checks.prove import source as ledger_source
from verify.checks.prove.judge import judge
from verify.checks.prove.subject import Subject
from verify.checks.replay.decoders import Decoder
from verify.checks.replay.deployments import row_of
from verify.checks.replay.processes import Case
from verify.checks.scan.scan import scan
from verify.engines.ledger import Release
from verify.errors import VerifyError
from verify.parallel.deployment import Deployment
from verify.parallel.guards import Guards
from verify.report.report import Finding, Json, TableSection
from verify.source.source import SourceTree

Result = tuple[Case, dict[str, Any]]
_COMPARED = ("exact", "double", "missing", "mixed", "crash", "hang")
_SAME = {"hang": "crash"}


@dataclass(frozen=True, kw_only=True)
class Statics:
    """What the static checks say: the blocks that `prove` judges and scan's findings by file."""

    subjects: tuple[Subject, ...]
    release: Release | None
    findings: Mapping[str, tuple[Finding, ...]]


def read_statics(tree: SourceTree) -> Statics:
    """Ask both; a source that `prove` does not know leaves its half empty."""
    findings: dict[str, tuple[Finding, ...]] = {}
    for finding in scan(tree).findings:
        findings[finding.file or ""] = (*findings.get(finding.file or "", ()), finding)
    try:
        sourced = ledger_source.read(tree)
    except VerifyError:
        return Statics(subjects=(), release=None, findings=findings)
    return Statics(subjects=sourced.subjects, release=sourced.release, findings=findings)


def routed_kind(out: Mapping[str, Any]) -> str | None:
    """How the routed experts alone ended; None where nothing can be compared."""
    if out["kind"] not in _COMPARED:
        return None
    if out["kind"] in ("crash", "hang"):
        return "crash"
    kinds = {kind for name, kind in out["producers"].items() if name.endswith("experts")}
    wrong = kinds - {"exact"}
    if not kinds:
        return None
    return "exact" if not wrong else wrong.pop() if len(wrong) == 1 else "mixed"


def proved_kind(deployment: Deployment, guards: Guards, release: Release) -> str:
    """What `prove` says: the kind of the first layer that is wrong, of a middle and a last one."""
    for position in ("middle", "last"):
        placed = replace(
            deployment, position=position, allow_reduce_scatter=guards.may_reduce_scatter
        )
        kind = judge(placed, guards, release=release).kind
        if kind != "exact":
            return _SAME.get(kind, kind)
    return "exact"


def against_prove(results: Sequence[Result], statics: Statics) -> tuple[TableSection, list[Json]]:
    """One line a layer: cases compared, agreed, and every disagreement as JSON."""
    lines: list[tuple[str, ...]] = []
    disagreements: list[Json] = []
    release = statics.release
    for decoder, cases in _by_decoder(results):
        guards = _executed_guards(decoder, statics.subjects)
        if release is None or guards is None:
            continue
        compared = 0
        differing: list[str] = []
        for case, out in cases:
            ran = routed_kind(out)
            if ran is None or not case.deployment.is_proved:
                continue
            compared += 1
            said = proved_kind(case.deployment, guards, release)
            if said != ran:
                differing.append(f"{ran}, not {said}")
                disagreements.append(
                    {
                        "subject": _name(decoder),
                        "deployment": case.deployment.as_json(),
                        "replay": ran,
                        "prove": said,
                    }
                )
        agreed = str(compared - len(differing))
        lines.append((_name(decoder), str(compared), agreed, "; ".join(sorted(set(differing)))))
    return (
        TableSection(
            title="Agreement with prove, about routed experts",
            columns=("layer", "cases", "agree", "where they differ: replay, not prove"),
            rows=tuple(lines),
        ),
        disagreements,
    )


def against_scan(results: Sequence[Result], statics: Statics) -> TableSection:
    """One line a layer: rows that ran wrong beside rows in which scan has findings in its file."""
    lines = []
    for decoder, cases in _by_decoder(results):
        ran = _rows(cases, lambda out: out["kind"] in _COMPARED)
        wrong = _rows(cases, lambda out: out["kind"] in _COMPARED and out["kind"] != "exact")
        found = {f.row for f in statics.findings.get(decoder.file, ()) if f.row} & ran
        if wrong or found:
            lines.append(
                (
                    _name(decoder),
                    " ".join(sorted(wrong)),
                    " ".join(sorted(found)),
                    " ".join(sorted(wrong - found)),
                    " ".join(sorted(found - wrong)),
                )
            )
    return TableSection(
        title="Agreement with scan, by row",
        columns=("layer", "wrong here", "found by scan", "only here", "only scan"),
        rows=tuple(lines),
        notes=(
            "scan's findings are those in the layer's own file; a row may be wrong here for a "
            "reason that scan reports in another file.",
        ),
    )


def _rows(cases: Iterable[Result], wanted: Callable[[dict[str, Any]], bool]) -> set[str]:
    return {row_of(case.deployment, out.get("published")) for case, out in cases if wanted(out)}


def _by_decoder(results: Sequence[Result]) -> list[tuple[Decoder, list[Result]]]:
    grouped: dict[Decoder, list[Result]] = {}
    for case, out in results:
        grouped.setdefault(case.decoder, []).append((case, out))
    return list(grouped.items())


def _executed_guards(decoder: Decoder, subjects: Iterable[Subject]) -> Guards | None:
    """The guards of the method that runs on a GPU without a second stream.

    None where the layer reduces too: `prove` judges each alone, and what runs is both. Of layers of
    one name that of its own file comes first.
    """
    home = PurePosixPath(decoder.file).stem
    own = {
        subject.name.partition(" in ")[0]: subject.guards
        for subject in sorted(subjects, key=lambda one: not one.name.startswith(f"{home}/"))
        if decoder.cls in subject.layers
    }
    if any(f"/{decoder.cls}." in name for name in own):
        return None
    for ending in (".forward_normal", ".forward"):
        for name, guards in own.items():
            if name.endswith(ending):
                return guards
    return None


def _name(decoder: Decoder) -> str:
    return f"{decoder.model}/{decoder.cls}"
