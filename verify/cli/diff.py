"""`python -m verify diff OLD NEW`: what a change to the source changed.

OLD and NEW are saved JSON reports of one command, or sources, which are scanned. Sites and
findings are followed through moved lines and renamed files; new findings are the command's
findings, so that a pull request fails on what it adds and not on what was there.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from verify.cli.scanned import scanned
from verify.engines.registry import READ
from verify.engines.sources import package
from verify.errors import VerifyError
from verify.logic.conjuncts import difference
from verify.report.causes import causes_of
from verify.report.fingerprint import numbered
from verify.report.render.words import counted
from verify.report.report import NOT_ANALYSED, Json, Report, TableSection
from verify.report.saved import as_saved, finding_from, findings_of, load, sites_of

Entry = Mapping[str, Json]
Key = tuple[str, ...]

# what names a site, and what moves with edits elsewhere in the file; all else is its behaviour
NAME_KEYS = ("id", "file", "cls", "method", "path", "collective")
UNSTABLE_KEYS = ("line", "why")
# not shown beside a change of what they follow from
DERIVED = {"skips_on": "guard"}
GUARD_WIDTH = 90


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`OLD` and `NEW`."""
    what = "a saved JSON report, or a source: directory, PATH@REV, wheel, sdist, requirement"
    parser.add_argument("old", metavar="OLD", help=what)
    parser.add_argument("new", metavar="NEW", help=what)


def run(arguments: argparse.Namespace) -> Report:
    """Compare the two; raises `VerifyError` when one cannot be read or they do not compare."""
    old, new = _side(arguments.old), _side(arguments.new)
    if old.command != new.command:
        raise VerifyError(
            f"{old.name} holds a {old.command!r} report and {new.name} a {new.command!r} report; "
            "compare reports of one command"
        )
    return build(old, new)


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two: the sites and findings of a report in their JSON form."""

    name: str
    title: str
    command: str
    sites: tuple[Entry, ...]
    findings: tuple[Entry, ...]


def _side(text: str) -> Side:
    path = Path(text)
    if path.suffix == ".json":
        return side_of(load(path), name=text)
    return side_of(as_saved(scanned(text)), name=text)


def side_of(report: Entry, *, name: str) -> Side:
    """A side from a report's JSON form. Raises `VerifyError` when that is not a report."""
    path = Path(name)
    findings = findings_of(report, path)
    for entry in findings:
        finding_from(entry, path)
    return Side(
        name=name,
        title=_title(report, name=name),
        command=str(report.get("command", "scan")),
        sites=sites_of(report, path),
        findings=findings,
    )


def _title(report: Entry, *, name: str) -> str:
    """Package and version where the report says so, else what the person typed."""
    source = report.get("source")
    if isinstance(source, dict) and source.get("version") not in (None, "unknown"):
        return f"{source.get('name')} {source['version']}"
    return name


def build(old: Side, new: Side) -> Report:
    """The report of what changed from `old` to `new`."""
    sites = match_sites(old.sites, new.sites)
    renamed = {str(a.get("file")): str(b.get("file")) for a, b in sites.moved}
    before = numbered(_renamed(finding, renamed) for finding in old.findings)
    after = numbered(new.findings)
    # what cannot be looked at may have changed
    added = tuple(
        entry for key, entry in after.items() if key not in before or entry["rule"] == NOT_ANALYSED
    )
    fixed = tuple(before[key] for key in before if key not in after)
    changes = tuple((a, b, _changes(a, b)) for a, b in (*sites.kept, *sites.moved))
    changed = tuple((a, b, what) for a, b, what in changes if what)
    stayed = len(after) - len(added)
    findings = tuple(finding_from(entry, Path(new.name)) for entry in added)
    causes = counted(len(causes_of(findings)), "cause")
    return Report(
        command="diff",
        title=f"{new.title} compared with {old.title}",
        summary=f"{counted(len(sites.appeared), 'site')} appeared, {len(sites.vanished)} vanished, "
        f"{len(sites.moved)} moved, {len(changed)} changed; "
        f"{counted(len(added), 'new finding')} of {causes}, {len(fixed)} fixed, {stayed} as before",
        payload={
            "old": old.name,
            "new": new.name,
            "compared": new.command,
            "appeared": sites.appeared,
            "vanished": sites.vanished,
            "moved": [{"from": a, "to": b} for a, b in sites.moved],
            "changed": [{"from": a, "to": b, "keys": list(what)} for a, b, what in changed],
            "fixed": fixed,
            "stayed": stayed,
        },
        sections=_sections(sites, changed, added, fixed),
        findings=findings,
    )


@dataclass(frozen=True, kw_only=True)
class SiteMatch:
    """Which site is which: pairs are (old, new)."""

    kept: tuple[tuple[Entry, Entry], ...]
    moved: tuple[tuple[Entry, Entry], ...]
    appeared: tuple[Entry, ...]
    vanished: tuple[Entry, ...]


def match_sites(old: Sequence[Entry], new: Sequence[Entry]) -> SiteMatch:
    """Match by name, then what is left by name without the file, if it is one on each side."""
    before, after = _keyed(old, NAME_KEYS), _keyed(new, NAME_KEYS)
    kept = tuple((before[key], after[key]) for key in before if key in after)
    vanished = [before[key] for key in before if key not in after]
    appeared = [after[key] for key in after if key not in before]
    homeless = tuple(key for key in NAME_KEYS if key not in ("id", "file"))
    gone, come = _keyed(vanished, homeless), _keyed(appeared, homeless)
    ambiguous = {key[:-1] for key in (*gone, *come) if key[-1] != "0"}
    pairs = tuple(
        (gone[key], come[key])
        for key in gone
        if key in come and key[:-1] not in ambiguous and gone[key].get("file")
    )
    return SiteMatch(
        kept=kept,
        moved=pairs,
        appeared=tuple(site for site in appeared if all(site is not b for _, b in pairs)),
        vanished=tuple(site for site in vanished if all(site is not a for a, _ in pairs)),
    )


def _keyed(sites: Iterable[Entry], keys: Sequence[str]) -> dict[Key, Entry]:
    """Each site by its name and which of its namesakes it is."""
    seen: Counter[Key] = Counter()
    result = {}
    for site in sites:
        name = tuple(str(site.get(key, "")) for key in keys)
        key = (*name, str(seen[name]))
        result[key] = site
        seen[name] += 1
    return result


def _renamed(finding: Entry, renamed: Mapping[str, str]) -> Entry:
    file = str(finding.get("file"))
    return {**finding, "file": renamed[file]} if file in renamed else finding


def _changes(old: Entry, new: Entry) -> tuple[str, ...]:
    ignored = (*NAME_KEYS, *UNSTABLE_KEYS)
    keys = dict.fromkeys((*old, *new))
    return tuple(key for key in keys if key not in ignored and old.get(key) != new.get(key))


# sections ------------------------------------------------------------------------------------


def _sections(
    sites: SiteMatch,
    changed: Iterable[tuple[Entry, Entry, tuple[str, ...]]],
    added: Iterable[Entry],
    fixed: Iterable[Entry],
) -> tuple[TableSection, ...]:
    site_rows = [
        *(("appeared", _where(site), "", _verdict(site)) for site in sites.appeared),
        *(("vanished", _where(site), _verdict(site), "") for site in sites.vanished),
        *(("moved", _where(b), _file(a), _file(b)) for a, b in sites.moved),
        *(
            (f"changed {key}", _where(b), *_values(a.get(key), b.get(key), key=key))
            for a, b, keys in changed
            for key in keys
            if key not in DERIVED or DERIVED[key] not in keys
        ),
    ]
    finding_rows = [
        (what, str(entry.get("rule", "")), _where(entry), str(entry.get("row") or ""))
        for what, entries in (("new", added), ("fixed", fixed))
        for entry in entries
    ]
    sections = (
        TableSection(
            title="Sites", columns=("change", "site", "old", "new"), rows=tuple(site_rows)
        ),
        TableSection(
            title="Findings that are new or fixed",
            columns=("change", "rule", "where", "row"),
            rows=tuple(finding_rows),
        ),
    )
    return tuple(section for section in sections if section.rows)


def _values(old: Json, new: Json, *, key: str) -> tuple[str, str]:
    """What the table shows of the two; of guards the conditions that differ."""
    before, after = _text(old), _text(new)
    return difference(before, after, width=GUARD_WIDTH) if key == "guard" else (before, after)


def _where(entry: Entry) -> str:
    if entry.get("id"):
        return str(entry["id"])
    line = f":{entry['line']}" if entry.get("line") else ""
    place = f"{_file(entry)}{line}"
    method = ".".join(str(entry[key]) for key in ("cls", "method") if entry.get(key))
    path = str(entry.get("path") or "")
    return " ".join(filter(None, (place or str(entry.get("subject") or ""), method, path)))


def _file(entry: Entry) -> str:
    """The file without the folders that all of them share."""
    return str(entry.get("file") or "").removeprefix(f"{READ}/{package().inside}/")


def _verdict(site: Entry) -> str:
    return str(site.get("verdict") or site.get("category") or "")


def _text(value: Json) -> str:
    if isinstance(value, list):
        return " ".join(map(_text, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value)
