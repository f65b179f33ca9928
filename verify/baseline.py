"""A reviewed list of findings to accept: what is on it is no news, what is stale on it is.

The file is a saved JSON report, or one written by hand with the same keys. An entry accepts one
finding that has every identifying key of the entry (`verify.fingerprint.IDENTITY`); the line and
the wording do not matter. Entries may say `reason`.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from verify.errors import VerifyError
from verify.fingerprint import IDENTITY, canonical
from verify.report import Finding, Json, Report, TableSection
from verify.saved import findings_of, load

STALE = "stale-expectation"

Entry = Mapping[str, Json]


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Declare `--expect`."""
    parser.add_argument(
        "--expect",
        type=Path,
        metavar="FILE",
        help="reviewed findings to accept (a saved JSON report); stale entries are findings",
    )


def apply(report: Report, path: Path) -> Report:
    """The report without the findings that the file accepts, and with what is stale in it.

    Raises `VerifyError` when the file cannot be read or an entry says too little.
    """
    entries = _entries(path)
    match = _match(report.findings, entries)
    stale = tuple(_stale(entry, path) for entry in match.unused)
    accepted = TableSection(
        title=f"Accepted by {path.name}",
        columns=("rule", "where", "row", "reason"),
        rows=tuple(_accepted_row(finding, entry) for finding, entry in match.accepted),
    )
    return replace(
        report,
        summary=f"{report.summary}; {len(match.accepted)} accepted by {path.name}, "
        f"{len(match.news)} not, {len(stale)} stale entries",
        sections=(*report.sections, accepted) if match.accepted else report.sections,
        findings=(*match.news, *stale),
    )


@dataclass(frozen=True, kw_only=True)
class _Match:
    accepted: tuple[tuple[Finding, Entry], ...]
    news: tuple[Finding, ...]
    unused: tuple[Entry, ...]


def _entries(path: Path) -> tuple[Entry, ...]:
    entries = findings_of(load(path), path)
    for number, entry in enumerate(entries, start=1):
        if not entry.get("rule") or not (entry.get("file") or entry.get("subject")):
            raise VerifyError(
                f"{path}: finding {number} accepts too much; give its rule and its file or subject"
            )
    return entries


def _match(findings: Sequence[Finding], entries: Sequence[Entry]) -> _Match:
    """Give each finding one entry, the most demanding entries first."""
    free = sorted(entries, key=lambda entry: -len(_demands(entry)))
    accepted, news = [], []
    for finding in findings:
        entry = next((entry for entry in free if _accepts(entry, finding)), None)
        if entry is None:
            news.append(finding)
        else:
            free.remove(entry)
            accepted.append((finding, entry))
    unused = tuple(entry for entry in entries if any(entry is left for left in free))
    return _Match(accepted=tuple(accepted), news=tuple(news), unused=unused)


def _demands(entry: Entry) -> dict[str, Json]:
    return {key: entry[key] for key in IDENTITY if key in entry}


def _accepts(entry: Entry, finding: Finding) -> bool:
    found = finding.as_json()
    return all(canonical(found[key]) == canonical(value) for key, value in _demands(entry).items())


def _stale(entry: Entry, path: Path) -> Finding:
    method = ".".join(str(entry[key]) for key in ("cls", "method") if entry.get(key))
    where = " ".join(filter(None, (str(entry.get("file") or entry.get("subject")), method)))
    return Finding(
        rule=STALE,
        subject=where,
        message=f"{path.name} expects {entry['rule']} in {where}, which is no longer found",
        fix=f"delete the entry from {path.name}",
        row=str(entry["row"]) if entry.get("row") else None,
    )


def _accepted_row(finding: Finding, entry: Entry) -> tuple[str, ...]:
    where = finding.subject if finding.file is None else f"{finding.file}:{finding.line}"
    return (finding.rule, where, finding.row or "", str(entry.get("reason", "")))
