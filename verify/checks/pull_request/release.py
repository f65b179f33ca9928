"""The pull request in a source: does it hold exactly the calls that the oracles state?

Where the helper takes keyword arguments (0.5.11 to 0.5.15) every difference is a finding. Before
and after, the source's own guards are laid beside the oracles, and nothing is judged.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from oracles import SITES, Site
from verify.checks.pull_request.calls import HelperCall, helper_calls
from verify.checks.pull_request.predicates import Definition, compare_definitions
from verify.checks.pull_request.readings import Comparison
from verify.checks.scan.sites import GuardedSite, read_sites
from verify.checks.scan.whole import broken, not_analysed
from verify.engines.registry import library
from verify.engines.sglang.vocabulary import UTILS_FILE
from verify.engines.sources import ledger, reading
from verify.errors import VerifyError
from verify.interpreter.index import Index
from verify.logic import truth
from verify.logic.flags import flag_names, skip_reasons
from verify.report.render.words import counted
from verify.report.report import Finding, Json, TableSection
from verify.source.source import SourceTree

SHAPES: Mapping[str, str] = {
    "open-coded": "the helper is not there yet; the guards that are, against the original ones",
    "helper-arguments": "the migrated calls, against what the oracles state",
    "helper-context": "the helper reads the flags from the forward context; against the original",
    "layer-boundary": "layer boundaries have replaced the helper; against the original guards",
    "unknown": "neither the helper nor open-coded guards are recognised",
}
AS_STATED = "as stated"
AS_ORIGINAL = "as the original"
AGREEING = (AS_STATED, AS_ORIGINAL)

Place = TypeVar("Place", HelperCall, GuardedSite)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a source holds where an oracle states a site; None where it holds nothing."""

    comparison: Comparison
    call: HelperCall | None
    guard: GuardedSite | None

    @property
    def at(self) -> GuardedSite | HelperCall | None:
        """The call, else the reduction."""
        return self.call or self.guard


@dataclass(frozen=True, kw_only=True)
class Release:
    """A source read against the oracles.

    `strays` are calls that no oracle states, `open_coded` reductions whose guard reads a flag in
    a method that does not ask the helper, `definitions` the flags of the configuration, `unread`
    the files that could not be parsed.
    """

    name: str
    version: str
    generation: str
    found: tuple[Found, ...]
    strays: tuple[HelperCall, ...]
    open_coded: tuple[GuardedSite, ...]
    definitions: tuple[Definition, ...]
    unread: tuple[str, ...]

    @property
    def migrated(self) -> bool:
        """Whether this is a source of the shape that the pull request made."""
        return self.generation == "helper-arguments"

    def findings(self) -> tuple[Finding, ...]:
        """What was not read; every difference between the calls and what the oracles state."""
        unread = tuple(map(not_analysed, self.unread))
        if not self.migrated:
            return unread
        return (
            *unread,
            *(_finding(found, wrong) for found in self.found if (wrong := mismatches(found))),
            *map(_stray, self.strays),
            *(_redefined(d) for d in self.definitions if d.differs),
        )

    @property
    def summary(self) -> str:
        """The part of the line for stderr."""
        as_stated = sum(self.against(found) in AGREEING for found in self.found)
        return (
            f"{self.name} {self.version} ({self.generation}): "
            f"{as_stated} of {len(self.found)} sites as the oracles state"
        )

    def payload(self) -> dict[str, Json]:
        """The JSON of `report --source`."""
        return {
            "source": {
                "name": self.name,
                "version": self.version,
                "generation": self.generation,
            },
            "calls": [_found_payload(found, against=self.against(found)) for found in self.found],
            "strays": [_call_payload(call) for call in self.strays],
            "definitions": [
                {"flag": d.flag, "definition": d.text, "against": d.verdict}
                for d in self.definitions
            ],
            "unread": self.unread,
        }

    def sections(self) -> tuple[TableSection, ...]:
        """The oracles' sites and the configuration's flags in this source."""
        absent = [d.flag for d in self.definitions if d.text is None]
        notes = (
            *([] if self.migrated else ["Laid side by side, not judged: `scan` judges."]),
            *([f"There is no {_listed(absent)} here: compared where it is False."] * bool(absent)),
        )
        sites = TableSection(
            title=f"{self.name} {self.version}: {SHAPES[self.generation]}",
            columns=("where", "site", "against the oracle"),
            rows=tuple(
                (
                    f"{found.at.file.rpartition('/')[2]}:{found.at.line}"
                    if found.at
                    else found.comparison.site.model,
                    f"{found.comparison.site.method} {found.comparison.site.path}",
                    self.against(found),
                )
                for found in self.found
            ),
            notes=notes,
        )
        flags = TableSection(
            title=f"{self.name} {self.version}: the configuration's flags, against the helper's",
            columns=("flag", "against the helper"),
            rows=tuple((d.flag, d.verdict) for d in self.definitions),
        )
        unread = TableSection(
            title="Not read", columns=("what",), rows=tuple((line,) for line in self.unread)
        )
        return (sites, flags, unread) if self.unread else (sites, flags)

    def against(self, found: Found) -> str:
        """How the source compares with the oracle at one site."""
        if self.migrated:
            return "; ".join(mismatches(found)) or AS_STATED
        return beside(found, absent=[d.flag for d in self.definitions if d.text is None])


def read_release(tree: SourceTree, comparisons: Sequence[Comparison]) -> Release:
    """Find every compared site in the source, which is parsed and never imported.

    Strays are looked for when every oracle is compared. Raises `VerifyError` for a source that has
    none of the sites: there is nothing to compare.
    """
    index = Index(tree, library(tree.name))
    calls, guards = helper_calls(index), read_sites(index)
    index.unread |= broken(index)
    found = tuple(
        Found(
            comparison=comparison,
            call=_pick(comparison.site, calls),
            guard=_pick(comparison.site, guards),
        )
        for comparison in comparisons
    )
    # of a migrated source each site that is missing is a finding
    there = calls or any(each.guard for each in found)
    if not there and not index.unread:
        sites = counted(len(found), "site")
        raise VerifyError(f"{tree.name} {tree.version}: nothing to look at: none of {sites} in it")
    stated = [each.call for each in found]
    whole = len(comparisons) == len(SITES)
    asking = {(call.cls, call.method) for call in calls}
    return Release(
        name=tree.name,
        version=tree.version,
        generation=tree.generation,
        found=found,
        strays=tuple(call for call in calls if whole and call not in stated),
        open_coded=tuple(
            guard for guard in guards if guard.skips_on and (guard.cls, guard.method) not in asking
        ),
        definitions=compare_definitions(ledger().definitions(reading().constraints.texts(index))),
        unread=tuple(why for _, why in sorted(index.unread.items())),
    )


def mismatches(found: Found) -> list[str]:
    """In what the migrated call differs from what the oracle states; empty where in nothing."""
    site, call = found.comparison.site, found.call
    if call is None:
        return [f"no call to the helper on the {site.path} path"]
    return list(_differences(found, site, call))


def _differences(found: Found, site: Site, call: HelperCall) -> Iterator[str]:
    names = {reason.flag: reason.name for reason in skip_reasons() if reason.value is None}
    flags = {name: flag for flag, name in names.items()}
    if set(call.passes) != set(site.passes):
        yield f"passes {_listed(call.passes)}, stated are {_listed(site.passes)}"
    for keyword, value in call.passes.items():
        if keyword in site.passes and value != names[site.passes[keyword]]:
            yield f"passes {keyword}={value}"
    accepts = [flags[name] for name in call.parameters if name in flags]
    if set(accepts) != set(site.accepts):
        yield f"receives {_listed(accepts)}, stated are {_listed(site.accepts)}"
    if found.guard is None:
        yield f"no reduction of the {site.path} path behind the call was recognised"
        return
    wrong = _skips(found.guard) ^ found.comparison.helper
    if wrong:
        rows = truth.table_bits(wrong, len(flag_names()))
        yield f"the guard differs from the helper in rows {_listed(rows)}"
    if found.guard.collective != site.collective:
        yield f"reduces by {found.guard.collective}, stated is {site.collective}"


def beside(found: Found, *, absent: Collection[str]) -> str:
    """How a guard of another shape compares with the original one.

    `absent` are flags that the source does not have: the original is taken where they are False.
    """
    if found.guard is None:
        return "not in this source"
    names = flag_names()
    before, now = found.comparison.original, _skips(found.guard)
    for flag in absent:
        before = truth.where_false(before, names.index(flag), len(names))
    if before == now:
        return AS_ORIGINAL
    known = [
        [flag for i, flag in enumerate(names) if truth.depends_on(table, i, len(names))]
        for table in (before, now)
    ]
    lacks = [flag for flag in known[0] if flag not in known[1]]
    besides = [flag for flag in known[1] if flag not in known[0]]
    words = [
        *([f"lacks {_listed(lacks)}"] if lacks else []),
        *([f"knows {_listed(besides)} besides"] if besides else []),
    ]
    rows = truth.table_bits(before ^ now, len(names))
    return "; ".join(words) or f"differs in rows {_listed(rows)}"


def _pick(site: Site, candidates: Sequence[Place]) -> Place | None:
    """By class, method and path: a file may be renamed; of several, the one in the model's file."""
    same = [
        candidate
        for candidate in candidates
        if (candidate.cls, candidate.method, candidate.path) == (site.cls, site.method, site.path)
    ]
    return next((c for c in same if c.file == site.file), same[0] if same else None)


def _skips(guard: GuardedSite) -> int:
    return truth.full(len(flag_names())) ^ guard.reduces


def _finding(found: Found, wrong: Sequence[str]) -> Finding:
    site, at = found.comparison.site, found.at
    return Finding(
        rule="migrated-call-differs" if found.call else "migrated-call-missing",
        subject=site.id,
        file=at.file if at else site.file,
        line=at.line if at else None,
        cls=site.cls,
        method=site.method,
        message="; ".join(wrong),
        fix="make the call as the pull request wrote it, or state the new one in the oracle",
    )


def _stray(call: HelperCall) -> Finding:
    return Finding(
        rule="migrated-call-unstated",
        subject=call.name,
        file=call.file,
        line=call.line,
        cls=call.cls,
        method=call.method,
        message="no oracle states this call to the helper",
        fix="write down its original guard in oracles/, from the source before the migration",
    )


def _redefined(definition: Definition) -> Finding:
    return Finding(
        rule="flag-redefined",
        subject=definition.flag,
        file=UTILS_FILE,
        message=f"{definition.flag} {definition.verdict}",
        fix="bring helper/predicates.py to this definition, or run the report on 0.5.11's shape",
    )


def _found_payload(found: Found, *, against: str) -> dict[str, Json]:
    guard = found.guard
    return {
        "id": found.comparison.site.id,
        "call": _call_payload(found.call) if found.call else None,
        "guard": None
        if guard is None
        else {
            "file": guard.file,
            "line": guard.line,
            "guard": guard.guard,
            "skips_on": guard.skips_on,
        },
        "against": against,
    }


def _call_payload(call: HelperCall) -> dict[str, Json]:
    return {
        "file": call.file,
        "line": call.line,
        "cls": call.cls,
        "method": call.method,
        "path": call.path,
        "passes": dict(call.passes),
    }


def _listed(values: Collection[str]) -> str:
    return " ".join(values) or "nothing"
