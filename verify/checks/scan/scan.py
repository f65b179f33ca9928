"""The whole check: find the layers, run them, judge every reduction, account for every call."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from verify.checks.scan import collector
from verify.checks.scan.addends.findings import Asked
from verify.checks.scan.approximated import Approximated, in_order
from verify.checks.scan.attention import summed_by_attention
from verify.checks.scan.between import added_between
from verify.checks.scan.counted import NEVER, of_sum, owed
from verify.checks.scan.declared import declared_outright
from verify.checks.scan.findings import COMBINED, Broken, finding, once, rule_of
from verify.checks.scan.fused import fused_under_attention_dp
from verify.checks.scan.layers import Facts, read_facts, run_layer
from verify.checks.scan.pipeline import lost_at_pipeline
from verify.checks.scan.renamed import renamed
from verify.checks.scan.roots import Roots, find_roots, shown_layers
from verify.checks.scan.server.launched import Judged
from verify.checks.scan.server.launches import Launcher
from verify.checks.scan.shared import unkept
from verify.checks.scan.side_by_side import side_by_side
from verify.checks.scan.sites import (
    Call,
    Guard,
    GuardedSite,
    bare_site,
    find_calls,
    guarded_site,
    read_all,
)
from verify.checks.scan.sizes import misnamed_sizes
from verify.checks.scan.statistics import unsummed_squares
from verify.checks.scan.tally import GIVEN_UP, Tally, outcome
from verify.checks.scan.whole import checked
from verify.engines.registry import library
from verify.interpreter.index import Class, Index, UnreadableError
from verify.interpreter.values import Key
from verify.report.report import Finding
from verify.source.source import SourceTree

Verdict = Literal["covered", "finding", "self-contained", "unresolved"]
# consumers that take a tensor as it is
SUMS_NOTHING = frozenset({"return", "scatter"})
VERDICTS: tuple[str, ...] = ("covered", "finding", "self-contained", "unresolved")


@dataclass(frozen=True, kw_only=True)
class JudgedSite:
    """One reduction with its verdict and the reason for it."""

    site: GuardedSite
    verdict: Verdict
    why: str


@dataclass(frozen=True, kw_only=True)
class ScanResult:
    """What the scan found.

    `set_aside` are reductions of something else than an MLP's output; `untold` additions to a
    partial sum of which the kind cannot be told; `refused` what would be wrong if the source did
    not refuse every launch that leads there; `renamed` collectives that are called by another name;
    `approximated` the layers' steps that are not exact.
    """

    name: str
    version: str
    generation: str
    sites: tuple[JudgedSite, ...]
    findings: tuple[Finding, ...]
    refused: tuple[Finding, ...]
    set_aside: tuple[str, ...]
    untold: tuple[str, ...]
    unread: tuple[str, ...]
    renamed: tuple[str, ...]
    approximated: Approximated
    layers: int

    @property
    def counts(self) -> dict[str, int]:
        """Reductions by verdict; they and what was set aside are all the calls there are."""
        found = {name: sum(s.verdict == name for s in self.sites) for name in VERDICTS}
        return {**found, "set aside": len(self.set_aside)}


def scan(tree: SourceTree) -> ScanResult:
    """Scan one source."""
    index = Index(tree, library(tree.name))
    with collector.paused():
        try:
            with checked(index) as faults:
                return _scan(index, faults)
        finally:
            index.forget()


def _scan(index: Index, faults: Callable[[], dict[str, str]]) -> ScanResult:
    tree = index.tree
    facts = read_facts(index)
    roots = find_roots(index)
    launcher = Launcher(index, roots)
    # before there are copies: what it reads, they have
    launcher.prepare()
    tally = Tally()
    with side_by_side(
        lambda cls: outcome(run_layer(facts, cls)), roots.layers, what="layers read"
    ) as outcomes:
        calls = {call.key: call for call in find_calls(index)}
        guards = dict(read_all(facts, tuple(calls.values())))
        taken = []
        for cls, seen in zip(roots.layers, outcomes(), strict=True):
            tally.add(cls, seen)
            taken.append((cls.name, seen.approximated))
            for path, why in seen.unread.items():
                index.unread.setdefault(path, why)
    guards |= _linear_calls(facts, tally, calls)
    for key in sorted(tally.seen):
        if guards.get(key) is None and key in calls:
            guards[key] = _as_run(facts, tally.seen[key][0][0], key)
    aside = {
        key
        for key, call in calls.items()
        if key not in tally.seen and roots.serves_mixers(call.cls)
    }
    wrong = [
        (one, _layers_of(roots, one), broken.fault)
        for broken in _broken(tally, guards, calls)
        for one in (finding(broken),)
    ]
    asked = [*tally.addends.asked()]
    asked += [ask for one in wrong for ask in launcher.asks(*one)]
    with side_by_side(_readable(launcher.judged), asked, what="launches followed") as judged:
        sums = [(one, NEVER) for one in lost_at_pipeline(roots, tally.fusing)]
        sums += [(one, NEVER) for one in fused_under_attention_dp(facts, tally.fusing)]
        sums += [(one, owed(one.row or "")) for one in added_between(roots, tally.fusing)]
        # what shared code leaves undone is every layer's: the steps of one would not say it
        everywhere = (
            *summed_by_attention(roots),
            *unkept(index),
            *misnamed_sizes(index),
            *unsummed_squares(index),
            *declared_outright(roots),
        )
        shared = [(one, None) for one in everywhere]
        # what the server refuses is no finding
        answers = dict(zip(asked, judged(), strict=True))
        tally.addends.launched(answers)
        other_names = tuple(renamed(index))
        taken += [(one.within, frozenset({one.step})) for one in other_names if one.handed]
        index.unread |= faults()
    sites = tuple(
        _judged(call, guards.get(key), tally)
        for key, call in sorted(calls.items())
        if key not in aside
    )
    found = [
        launcher.combined(one, layers, fault, answers)
        if fault.backends
        else launcher.shown(one, layers, of_sum(fault))
        for one, layers, fault in wrong
    ]
    found += [launcher.shown(one, _layers_of(roots, one), steps) for one, steps in (*sums, *shared)]
    never = [one for one in found if one.refused and not one.launch]
    if launcher.arguments.server is not None:
        # nobody starts a server with such a backend
        found = [one for one in found if one.launch or one.rule != COMBINED]
    return ScanResult(
        name=tree.name,
        version=tree.version,
        generation=tree.generation,
        sites=sites,
        findings=_in_order(*once((*found, *tally.addends.findings()))),
        refused=_in_order(*tally.addends.refused, *never),
        untold=tuple(sorted(tally.addends.untold)),
        set_aside=tuple(f"{file}:{line}" for file, line, _ in sorted(aside)),
        unread=(*tree.skipped, *sorted(index.unread.values())),
        renamed=tuple(str(one) for one in other_names if not one.handed),
        approximated=in_order(taken),
        layers=len(roots.layers),
    )


def _readable(judged: Callable[[Asked], Judged | None]) -> Callable[[Asked], Judged | None]:
    """As `judged`, None too where a file that it reads is not Python: that is a finding itself."""

    def found(one: Asked) -> Judged | None:
        try:
            return judged(one)
        except UnreadableError:
            return None

    return found


def _layers_of(roots: Roots, finding: Finding) -> tuple[Class, ...]:
    """The layers that a finding names."""
    names = finding.subject.split(", ")
    return tuple(layer for layer in roots.layers if layer.name in names)


def _in_order(*findings: Finding) -> tuple[Finding, ...]:
    return tuple(
        sorted(findings, key=lambda one: (one.file or "", one.line or 0, one.rule, one.row or ""))
    )


def _linear_calls(facts: Facts, tally: Tally, calls: dict[Key, Call]) -> dict[Key, Guard | None]:
    """Reductions inside linear and expert layers, seen when run: each is a site of its own.

    Adds them to `calls`; returns their guards.
    """
    found: dict[Key, Call] = {}
    for key, place in sorted(tally.places.items()):
        module = facts.index.module(place.file)
        cls = module.lookup(place.cls) if module and place.cls else None
        method = cls.methods.get(place.method) if isinstance(cls, Class) else None
        if key not in calls and isinstance(cls, Class) and method is not None:
            found[key] = Call(
                file=place.file,
                line=place.line,
                column=place.column,
                cls=cls,
                method=method,
                collective=place.collective,
            )
    calls.update(found)
    return dict(read_all(facts, tuple(found.values())))


def _as_run(facts: Facts, cls: Class, key: Key) -> Guard | None:
    """The guard as a layer's run has it, where the method alone does not reach the site."""
    run = run_layer(facts, cls)
    for reduction in run.reductions:
        if reduction.place.key == key:
            return Guard(reduction.place, reduction.when, run.state.logic)
    return None


def _judged(call: Call, guard: Guard | None, tally: Tally) -> JudgedSite:
    site = guarded_site(call, guard) if guard else bare_site(call)
    reached = tally.seen.get(call.key, ())
    seen = [(cls, kind) for cls, kind in reached if kind != GIVEN_UP]
    layers = shown_layers({cls.name for cls, _ in seen or reached})
    consumers = {kind for _, kind in seen} - {"inside"}
    kinds = {str(fault.kind) for fault, _ in tally.faults.get(call.key, ())} - {"backend"}
    kinds |= tally.addends.kinds_at(call.key)
    if kinds:
        return JudgedSite(
            site=site, verdict="finding", why=f"{', '.join(sorted(kinds))} in {layers}"
        )
    if guard is None:
        return JudgedSite(site=site, verdict="unresolved", why="its method cannot be followed")
    if reached and not seen:
        return JudgedSite(site=site, verdict="unresolved", why=f"{layers} cannot be followed")
    if not seen and (call.file, call.method.lineno) in tally.entered:
        return JudgedSite(site=site, verdict="covered", why="every layer tells it to skip")
    if not seen:
        return JudgedSite(site=site, verdict="unresolved", why="no known layer reaches it")
    if consumers <= SUMS_NOTHING:
        why = f"no consumer sums what {layers} returns" if consumers else f"stays inside {layers}"
        return JudgedSite(site=site, verdict="self-contained", why=why)
    skips = ", ".join(site.skips_on) or "no flag"
    shown = " and ".join(sorted(consumers - SUMS_NOTHING))
    return JudgedSite(
        site=site, verdict="covered", why=f"skips on {skips}; {shown} of {layers} sums the rest"
    )


def _broken(
    tally: Tally, guards: dict[Key, Guard | None], calls: dict[Key, Call]
) -> Iterable[Broken]:
    """One a site, kind and rule: the rows of all axes, layers and consumers together."""
    found: dict[tuple[Key, str, str], Broken] = {}
    for key, pairs in tally.faults.items():
        for fault, cls in pairs:
            if fault.places[0].key != key:
                continue
            rule = rule_of(fault, guards, calls.values())
            one = Broken(rule=rule, fault=fault, rows=fault.rows, layers=frozenset({cls.name}))
            known = found.get((key, fault.kind, rule))
            found[(key, fault.kind, rule)] = known.joined(one) if known else one
    return found.values()
