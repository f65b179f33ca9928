"""A reviewed list of findings to accept: what is on it is no news, what is stale on it is.

The file is a saved JSON report, or one written by hand with the same keys. An entry accepts one
finding that has every identifying key of the entry (`verify.report.fingerprint.IDENTITY`); the
line and the wording do not matter. Entries say a `reason`; `--write-expect` keeps those that it
finds. What was not analysed is accepted with a reason only; of the rest the summary counts those
that have none.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from verify.errors import VerifyError
from verify.report.causes import id_of
from verify.report.choices import ALWAYS
from verify.report.deliver import deliver
from verify.report.fingerprint import IDENTITY, canonical
from verify.report.report import NOT_ANALYSED, SCHEMA_VERSION, Finding, Json, Report, TableSection
from verify.report.saved import finding_from, findings_of, load

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
    parser.add_argument(
        "--write-expect",
        type=Path,
        metavar="FILE",
        help="write such a list of all findings, with an empty reason each for you to fill in; the "
        "reasons that the file has stay",
    )


def apply(
    report: Report, path: Path, *, counts: Callable[[str], bool] = lambda rule: True
) -> Report:
    """The report without the findings that the file accepts, and with what is stale in it.

    Entries of rules that do not count are left alone. Raises `VerifyError` when the file cannot be
    read, holds another command's report, or an entry says too little.
    """
    entries = tuple(one for one in _entries(path, report.command) if counts(str(one["rule"])))
    match = _match(report.findings, entries)
    stale = tuple(_stale(entry, path) for entry in match.unused)
    accepted = TableSection(
        title=f"Accepted by {path.name}",
        columns=("cause", "where", "row", "reason"),
        rows=tuple(
            _accepted_row(finding, entry)
            for finding, entry in sorted(match.accepted, key=lambda pair: id_of(pair[0]))
        ),
    )
    bare = sum(not entry.get("reason") for _, entry in match.accepted)
    return replace(
        report,
        summary=f"{report.summary}; {len(match.accepted)} accepted by {path.name}, "
        f"{len(match.news)} not, {len(stale)} stale {'entry' if len(stale) == 1 else 'entries'}"
        + (f"; {bare} accepted without a reason" if bare else ""),
        sections=(*report.sections, accepted) if match.accepted else report.sections,
        findings=(*match.news, *stale),
    )


def write(report: Report, path: Path) -> None:
    """Write a baseline that accepts the report's findings; raises `VerifyError` as `apply` does.

    What was not looked at is accepted as soon as somebody writes a reason there.
    """
    known = _match(report.findings, _entries(path, report.command) if path.exists() else ())
    reasons = {id(finding): entry.get("reason", "") for finding, entry in known.accepted}
    entries = [
        {
            **{key: value for key, value in finding.as_json().items() if key in IDENTITY and value},
            "reason": reasons.get(id(finding), ""),
        }
        for finding in report.findings
        if finding.rule not in ALWAYS - {NOT_ANALYSED}
    ]
    baseline = {"schema_version": SCHEMA_VERSION, "command": report.command, "findings": entries}
    deliver(json.dumps(baseline, indent=1) + "\n", output=path)


@dataclass(frozen=True, kw_only=True)
class _Match:
    accepted: tuple[tuple[Finding, Entry], ...]
    news: tuple[Finding, ...]
    unused: tuple[Entry, ...]


def _entries(path: Path, command: str) -> tuple[Entry, ...]:
    saved = load(path)
    if saved.get("command", command) != command:
        raise VerifyError(
            f"{path} holds findings of {saved['command']!r} and this is {command!r}: a baseline is "
            "of one command"
        )
    entries = findings_of(saved, path)
    for number, entry in enumerate(entries, start=1):
        # of the right kinds, or it could never be equal to anything
        finding_from(entry, path)
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
            continue
        free.remove(entry)
        if finding.rule == NOT_ANALYSED and not entry.get("reason"):
            news.append(replace(finding, fix="mend it, or write a reason into its baseline entry"))
        else:
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
    return (id_of(finding), where, finding.row or "", str(entry.get("reason") or "none given"))
