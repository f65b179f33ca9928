"""What stands around the blocks of a source: the decoder layers that build them, each run once.

`verify.checks.scan` runs the same layers for its verdicts; here is kept what decides the steps
around a block's own reductions.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from helper import Path
from verify.checks.scan.addends.findings import Asked, supported
from verify.checks.scan.addends.machine import FUSED
from verify.checks.scan.layers import Facts, LayerRun, run_layer
from verify.checks.scan.roots import Roots, find_roots
from verify.checks.scan.server.launches import Launcher
from verify.checks.scan.side_by_side import side_by_side
from verify.checks.scan.sites import GuardedSite
from verify.engines.sources import reading
from verify.interpreter.index import Class
from verify.interpreter.state import Approximation
from verify.interpreter.values import Axis
from verify.logic.diagrams import FALSE, Cond
from verify.parallel.guards import SharedRule

ENGINE = reading()
Line = tuple[str, int]
ATTENTION_DP, COMBINES = ENGINE.atoms.attention_dp, ENGINE.roles.combines
ALL, NONE, REDUCES = "all", "none", "reduces before its boundary"
PATHS: Mapping[Path, Axis] = {"EP": "EP", "TP": "MOE_TP"}
REFUSABLE = (ATTENTION_DP, COMBINES)


@dataclass(frozen=True, kw_only=True)
class Around:
    """A layer, as one run of it shows; it knows places only, so that a process can send it.

    `told`: each line with a reduction that ran, and the flags that decide there; `reduces`: the
    rows in which one of its reductions can be made there, by path; `twice`: those in which it sums
    there, by path, what is summed there already; `refused`: what no server can be
    in there, `never` in the whole layer; `reached`: behind the combine of which all-to-all backends
    that the server takes one runs, the one to show first. `communicates`: whether what it leaves
    goes to what moves tokens between attention groups; `boundary`: whether a stage's boundary sums
    what its experts leave (`ALL`), takes nothing of theirs (`NONE`), or why that cannot be judged;
    `approximated`: the steps of the run that are not exact. The others as in
    `verify.parallel.guards.Guards`.
    """

    name: str
    file: str
    told: Mapping[Line, frozenset[str]]
    reduces: Mapping[Line, Mapping[Path, int]]
    twice: Mapping[Line, Mapping[Path, int]]
    refused: Mapping[Line, frozenset[str]]
    never: frozenset[str]
    reached: Mapping[Line, tuple[str, ...]]
    communicates: bool
    boundary: str
    allows_scatter: bool
    tags_fusion: bool
    knows_last_layer: bool
    shared_experts: SharedRule
    weighs_fused: bool
    fuses_on_rocm: bool
    approximated: frozenset[Approximation]
    completes_stage: bool = False


def layers_around(facts: Facts, sites: Collection[GuardedSite]) -> tuple[Around, ...]:
    """Every layer that may reach one of these reductions, in the order of the source.

    All layers where there are none.
    """
    roots = find_roots(facts.index)
    blocks = {(site.file, site.cls) for site in sites}
    layers = _reaching(roots, blocks) if blocks else roots.layers
    with side_by_side(partial(_around, facts), layers, what="layers read") as ran:
        found = tuple(zip(layers, ran(), strict=True))
    launcher = Launcher(facts.index, roots)
    return tuple(
        replace(
            one,
            completes_stage=_completes(roots, cls),
            reached=_started(launcher, cls, one.reached),
        )
        for cls, one in found
    )


def _started(
    launcher: Launcher, cls: Class, reached: Mapping[Line, tuple[str, ...]]
) -> dict[Line, tuple[str, ...]]:
    """Of the backends those with which the server starts a model that has the layer."""
    backends = sorted({name for names in reached.values() for name in names})
    asked = Asked(
        cls, "backend", "", tuple(supported(cls, tuple(backends))), (), (cls.module.path,)
    )
    judged = launcher.judged(asked) if backends else None
    if judged is None:
        return dict(reached)
    shown = judged.launch.options.values() if judged.launch else ()
    order = sorted(judged.backends, key=lambda name: (name not in shown, name))
    return {line: tuple(name for name in order if name in names) for line, names in reached.items()}


def _reaching(roots: Roots, blocks: Collection[tuple[str, str | None]]) -> list[Class]:
    todo = [
        cls
        for cls in (*roots.built_by, *roots.layers)
        if any((one.module.path, one.name) in blocks for one in cls.ancestors)
    ]
    reached: set[Class] = set()
    while todo:
        cls = todo.pop()
        if cls not in reached:
            reached.add(cls)
            todo += roots.built_by.get(cls, ())
    return [layer for layer in roots.layers if layer in reached]


def _around(facts: Facts, cls: Class) -> Around:
    run = run_layer(facts, cls)
    logic, flags = run.state.logic, frozenset(ENGINE.flags)
    when: dict[Line, Cond] = {}
    reduces: dict[Line, dict[Path, int]] = {}
    for reduction in run.reductions:
        line = (reduction.place.file, reduction.place.line)
        when[line] = logic.either(when.get(line, FALSE), reduction.when)
        for path, axis in PATHS.items():
            if axis in reduction.place.axes:
                rows = reduces.setdefault(line, {})
                rows[path] = rows.get(path, 0) | logic.table(reduction.when, ENGINE.flags)
    return Around(
        name=cls.name,
        file=cls.module.path,
        told={line: flags.intersection(logic.support(cond)) for line, cond in when.items()},
        reduces=reduces,
        twice=_twice(run),
        refused={line: frozenset(_refused(run, cond)) for line, cond in when.items()},
        never=frozenset(_refused(run, FALSE)),
        reached=_reached(run),
        communicates=run.state.communicators > 0,
        boundary=_boundary(run),
        allows_scatter=run.state.allows,
        tags_fusion=any(sink.kind == "fused norm" for sink in run.sinks),
        knows_last_layer=not run.state.past_the_end,
        shared_experts=_shared_experts(run),
        weighs_fused=not any(fault.cause == "fused" for fault in run.addends.faults),
        fuses_on_rocm=_fuses_on_rocm(run),
        approximated=frozenset(run.state.approximated),
    )


def _refused(run: LayerRun, when: Cond) -> Iterator[str]:
    """The conditions that cannot be in this layer, or where this reduction's code runs at all.

    A guard that does not reduce there says nothing of it.
    """
    logic = run.state.logic
    for name in REFUSABLE:
        there = logic.both(when, logic.atom(name))
        if logic.both(run.theory, logic.atom(name) if there == FALSE else there) == FALSE:
            yield name


def _reached(run: LayerRun) -> dict[Line, tuple[str, ...]]:
    """By line: the all-to-all backends behind whose combine a reduction runs."""
    found: dict[Line, set[str]] = {}
    for fault in run.faults:
        for place in fault.places:
            found.setdefault((place.file, place.line), set()).update(fault.backends)
    return {line: tuple(sorted(names)) for line, names in found.items()}


def _twice(run: LayerRun) -> dict[Line, dict[Path, int]]:
    found: dict[Line, dict[Path, int]] = {}
    for fault in run.faults:
        for place in fault.places if fault.kind == "twice" else ():
            rows = found.setdefault((place.file, place.line), {})
            path: Path = "EP" if fault.axis == "EP" else "TP"
            rows[path] = rows.get(path, 0) | fault.rows
    return found


def _boundary(run: LayerRun) -> str:
    taken = (part for sink in run.sinks if sink.kind == "boundary" for part in sink.parts)
    if not any("EP" in part.axes for part in taken):
        return NONE
    if run.cls.has((ENGINE.wiring.own_sum,)):
        return "its boundary is given a sum of its own"
    return REDUCES if run.reductions else ALL


def _shared_experts(run: LayerRun) -> SharedRule:
    """What goes with the routed experts and is not theirs: a whole shared expert leaves nothing.

    One that sums itself up is no addend that anybody has to complete.
    """
    logic, found = run.state.logic, FALSE
    for sink in run.sinks:
        routed = [part for part in sink.parts if "EP" in part.axes]
        summing = {place for part in routed for place in part.reduced}
        there = logic.any_of(*(part.present for part in routed))
        for part in sink.parts:
            if part.axes and "EP" not in part.axes and part.reduced.keys() <= summing:
                found = logic.either(found, logic.both(there, part.present))
    if found == FALSE:
        return "none"
    sharded = logic.assume(found, COMBINES, value=True)
    return "replicated for FI" if sharded == FALSE else "sharded for FI"


def _fuses_on_rocm(run: LayerRun) -> bool:
    """Whether shared experts are fused into the routed ones where the machine is ROCm's only."""
    logic, rocm = run.state.logic, ENGINE.atoms.asked_late
    fused = [part for sink in run.sinks for part in sink.parts if part.origin.told == FUSED]
    elsewhere = (logic.assume(part.present, rocm, value=False) for part in fused)
    return bool(fused) and all(cond == FALSE for cond in elsewhere)


def _completes(roots: Roots, layer: Class) -> bool:
    """Whether a model sums up what this layer left before its tensors go to the next stage."""
    senders = [
        model
        for model in roots.built_by.get(layer, ())
        if any(one.mentions((ENGINE.structure.handoff,)) for one in model.ancestors)
    ]
    return any(model.has((ENGINE.library.mark,)) for model in senders)
