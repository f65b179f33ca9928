"""The whole check: find the layers, run them, judge every reduction, account for every call."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from verify.progress import track
from verify.report import Finding
from verify.scan.findings import finding, rule_of
from verify.scan.index import Class, Index
from verify.scan.judge import Fault
from verify.scan.layers import Facts, LayerRun, read_facts, run_layer
from verify.scan.roots import find_roots
from verify.scan.sites import (
    Call,
    Guard,
    GuardedSite,
    find_calls,
    guarded_site,
    read_all,
    read_guards,
)
from verify.scan.values import Place
from verify.source import SourceTree

Verdict = Literal["covered", "finding", "self-contained", "unresolved"]
VERDICTS: tuple[str, ...] = ("covered", "finding", "self-contained", "unresolved")
Key = tuple[str, int, int]
ADVICE = "reduces-after-combine"


@dataclass(frozen=True, kw_only=True)
class JudgedSite:
    """One reduction with its verdict and the reason for it."""

    site: GuardedSite
    verdict: Verdict
    why: str


@dataclass(frozen=True, kw_only=True)
class ScanResult:
    """What the scan found.

    `set_aside` are reductions of something else than an MLP's output; `advice` is what would go
    wrong with an all-to-all backend that the model may not be meant for.
    """

    name: str
    version: str
    generation: str
    sites: tuple[JudgedSite, ...]
    findings: tuple[Finding, ...]
    advice: tuple[Finding, ...]
    set_aside: tuple[str, ...]
    unread: tuple[str, ...]
    layers: int

    @property
    def counts(self) -> dict[str, int]:
        """Reductions by verdict; they and what was set aside are all the calls there are."""
        found = {name: sum(s.verdict == name for s in self.sites) for name in VERDICTS}
        return {**found, "set aside": len(self.set_aside)}


def scan(tree: SourceTree) -> ScanResult:
    """Scan one source."""
    index = Index(tree)
    facts = read_facts(index)
    roots = find_roots(index)
    runs = tuple(run_layer(facts, cls) for cls in track(roots.layers, what="layers read"))
    calls = find_calls(index)
    guards = {call.key: guard for call, guard in read_all(facts, calls)}
    lines = _linear_calls(facts, runs, calls)
    for call, guard in lines:
        guards[call.key] = guard
    known = {call.key: call for call in (*calls, *(call for call, _ in lines))}
    seen = _seen(runs)
    by_site = _faults_by_site(runs)
    for key in seen:
        if guards.get(key) is None and key in known:
            guards[key] = _as_run(runs, key)
    entered = frozenset().union(*(run.state.entered for run in runs))
    aside = tuple(
        key for key, call in known.items() if key not in seen and roots.serves_mixers(call.cls)
    )
    sites = tuple(
        _judged(call, guards.get(key), seen.get(key, ()), by_site.get(key, ()), entered)
        for key, call in sorted(known.items())
        if key not in aside
    )
    found = [finding(fault, rule, layers) for fault, rule, layers in _distinct(runs, guards, known)]
    found.sort(key=lambda one: (one.file or "", one.line or 0, one.rule))
    return ScanResult(
        name=tree.name,
        version=tree.version,
        generation=tree.generation,
        sites=sites,
        findings=tuple(one for one in found if one.rule != ADVICE),
        advice=tuple(one for one in found if one.rule == ADVICE),
        set_aside=tuple(f"{file}:{line}" for file, line, _ in sorted(aside)),
        unread=(*tree.skipped, *sorted(index.unread.values()), *_given_up(runs)),
        layers=len(runs),
    )


def _key(place: Place) -> Key:
    return (place.file, place.line, place.column)


def _given_up(runs: Iterable[LayerRun]) -> tuple[str, ...]:
    return tuple(
        f"{run.cls.module.path}:{run.cls.line}: {run.cls.name} cannot be followed: {run.unresolved}"
        for run in runs
        if run.unresolved
    )


def _linear_calls(
    facts: Facts, runs: Iterable[LayerRun], calls: tuple[Call, ...]
) -> list[tuple[Call, Guard]]:
    """Reductions inside linear and expert layers, found by running: each is a site of its own."""
    named = {call.key for call in calls}
    places = {
        _key(r.place): r.place for run in runs for r in run.reductions if _key(r.place) not in named
    }
    found: list[tuple[Call, Guard]] = []
    guards: dict[tuple[str, str | None, str], dict[Key, Guard]] = {}
    for key, place in sorted(places.items()):
        module = facts.index.module(place.file)
        cls = module.lookup(place.cls) if module and place.cls else None
        if module is None or not isinstance(cls, Class) or place.method not in cls.methods:
            continue
        where = (place.file, place.cls, place.method)
        method = cls.methods[place.method]
        if where not in guards:
            guards[where] = read_guards(facts, cls, module, method)
        call = Call(
            file=place.file,
            line=place.line,
            column=place.column,
            cls=cls,
            method=method,
            collective=place.collective,
        )
        found.append((call, guards[where].get(key) or _as_run(runs, key)))
    return found


def _as_run(runs: Iterable[LayerRun], key: Key) -> Guard:
    """The guard as a layer's run has it, where the method alone does not reach the site."""
    return next(
        Guard(reduction.place, reduction.when, run.state.logic)
        for run in runs
        for reduction in run.reductions
        if _key(reduction.place) == key
    )


def _seen(runs: Iterable[LayerRun]) -> dict[Key, tuple[tuple[LayerRun, str], ...]]:
    """Where each reduction's tensor went: the run and the kinds of consumers."""
    found: dict[Key, list[tuple[LayerRun, str]]] = {}
    for run in runs:
        for reduction in run.reductions:
            found.setdefault(_key(reduction.place), []).append((run, "inside"))
        for sink in run.sinks:
            for part in sink.parts:
                for place in part.reduced:
                    found[_key(place)].append((run, sink.kind)) if _key(place) in found else None
    return {key: tuple(pairs) for key, pairs in found.items()}


def _faults_by_site(runs: Iterable[LayerRun]) -> dict[Key, tuple[Fault, ...]]:
    found: dict[Key, list[Fault]] = {}
    for run in runs:
        for fault in run.faults:
            for place in fault.places if fault.kind != "backend" else ():
                found.setdefault(_key(place), []).append(fault)
    return {key: tuple(faults) for key, faults in found.items()}


def _judged(
    call: Call,
    guard: Guard | None,
    seen: tuple[tuple[LayerRun, str], ...],
    faults: tuple[Fault, ...],
    entered: frozenset[tuple[str, int]],
) -> JudgedSite:
    site = guarded_site(call, guard) if guard else _bare(call)
    layers = ", ".join(sorted({run.cls.name for run, _ in seen})[:4])
    consumers = {kind for _, kind in seen} - {"inside"}
    if faults:
        kinds = ", ".join(sorted({fault.kind for fault in faults}))
        return JudgedSite(site=site, verdict="finding", why=f"{kinds} in {layers}")
    if guard is None:
        return JudgedSite(site=site, verdict="unresolved", why="its method cannot be followed")
    if not seen and (call.file, call.method.lineno) in entered:
        return JudgedSite(site=site, verdict="covered", why="every layer tells it to skip")
    if not seen:
        return JudgedSite(site=site, verdict="unresolved", why="no layer that reaches it was found")
    if consumers <= {"return"}:
        why = f"no consumer sums what {layers} returns" if consumers else f"stays inside {layers}"
        return JudgedSite(site=site, verdict="self-contained", why=why)
    skips = ", ".join(site.skips_on) or "no flag"
    shown = " and ".join(sorted(consumers - {"return"}))
    return JudgedSite(
        site=site, verdict="covered", why=f"skips on {skips}; {shown} of {layers} sums the rest"
    )


def _bare(call: Call) -> GuardedSite:
    return GuardedSite(
        file=call.file,
        line=call.line,
        cls=call.cls.name if call.cls else None,
        method=call.method.name,
        collective=call.collective,
        path="TP",
        guard="unresolved",
        reduces=0,
        must=0,
        accepts=(),
        passes=(),
        atoms=(),
    )


def _distinct(
    runs: Iterable[LayerRun], guards: dict[Key, Guard | None], known: dict[Key, Call]
) -> list[tuple[Fault, str, tuple[str, ...]]]:
    """One fault a site and rule: the rows of all axes, layers and consumers together."""
    found: dict[tuple[Key, str, str], tuple[Fault, set[str]]] = {}
    for run in runs:
        for fault in run.faults:
            rule = rule_of(fault, guards, known.values())
            key = (_key(fault.places[0]), fault.kind, rule)
            if key in found:
                other, layers = found[key]
                better = (
                    fault
                    if (fault.row.count("1"), fault.row) < (other.row.count("1"), other.row)
                    else other
                )
                found[key] = (replace(better, rows=other.rows | fault.rows), layers)
            else:
                found[key] = (fault, set())
            found[key][1].add(run.cls.name)
    return [(fault, rule, tuple(sorted(layers))) for (_, _, rule), (fault, layers) in found.items()]
