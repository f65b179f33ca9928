"""Does every sum run over the group that its parts are split over?

Dense and shared layers are split over the whole tensor-parallel group, routed experts over the
expert and the MoE tensor-parallel group. These two are the whole group only where there is one
copy of the experts (`moe_dp_size` 1).

- *narrow*: a sum leaves out ranks that hold slices, whose part is lost;
- *wide*: a sum takes in another copy's ranks, so that every expert counts once for each copy.
"""

from collections.abc import Iterable, Iterator

from verify.checks.scan.addends.completion import BROUGHT, as_declared
from verify.checks.scan.addends.judge import Fault, Judge
from verify.checks.scan.addends.machine import AddendMachine
from verify.checks.scan.judge import SIZE_OF
from verify.engines.sources import reading
from verify.engines.traits import Coverage, ReductionGroups
from verify.interpreter.state import Sink
from verify.interpreter.values import (
    Axis,
    Const,
    Part,
    Partial,
    Place,
    Primitive,
    Text,
    Value,
    alternatives,
)
from verify.logic.diagrams import FALSE, Cond

ENGINE = reading()
ROLES, ATOMS = ENGINE.roles, ENGINE.atoms
COPIES = "moe_dp_size > 1"


def wrong_groups(
    machine: AddendMachine, theory: Cond, groups: ReductionGroups
) -> tuple[Fault, ...]:
    """Judge the groups of a run that has ended."""
    return tuple(GroupJudge(machine, theory, groups).faults())


class GroupJudge(Judge):
    """Judges the groups that one run's partial sums are summed over."""

    def __init__(self, machine: AddendMachine, theory: Cond, groups: ReductionGroups) -> None:
        super().__init__(machine, theory, ())
        self.groups = groups
        self.known |= {COPIES, ATOMS.asked_late, *SIZE_OF.values()}

    def faults(self) -> Iterator[Fault]:
        """Every sum over another group than its parts are split over."""
        if self.routed == FALSE:
            return
        for sink in self.machine.state.sinks:
            if sink.kind == "fused norm":
                yield from self._fused(sink)
            if self.groups.copies:
                yield from self._copied(sink)

    def _fused(self, sink: Sink) -> Iterator[Fault]:
        """A fused norm that sums over one of the groups only."""
        yield from self._declined(sink)
        index, logic, norms = self.machine.state.index, self.logic, self.machine.norms
        coverage, place = self.groups.fused, self.groups.fused_at
        if coverage is None or place is None or not norms:
            return
        if not all(ENGINE.traits.takes_the_picked_group(index, norm) for norm in norms):
            return
        fuses = logic.both(sink.when, logic.atom(ROLES.fuses))
        split, copied = self._half(sink, coverage), FALSE
        for part in sink.parts:
            if part.born and part.axes == ("TP",) and self.groups.copies:
                copied = logic.either(copied, self._left_out(part, None, coverage))
        yield from self._fault("narrow", "split", (place,), sink, logic.both(fuses, split))
        copied = logic.all_of(fuses, copied, self._copies())
        yield from self._fault("narrow", "fused-copies", (place,), sink, copied)

    def _declined(self, sink: Sink) -> Iterator[Fault]:
        """What stands in for a fused kernel that declines, and sums over one group only.

        Which kernels a layer asks before it leaves its sum is in the flag's own definition; the
        one of this platform is asked again, about sizes, when the sum is already left.
        """
        coverage, place = self.groups.declined, self.groups.declined_at
        if coverage is not None and place is not None:
            half = self._half(sink, coverage)
            asked = map(self.logic.atom, (ROLES.fuses, ATOMS.asked_late))
            when = self.logic.all_of(sink.when, half, *asked)
            yield from self._fault("narrow", "declined", (place,), sink, when)

    def _half(self, sink: Sink, coverage: Coverage) -> Cond:
        """Where some part is owed over one of the experts' two groups, which is left out."""
        found = FALSE
        for part in sink.parts:
            if part.born and part.axes and "ATTN_TP" not in part.axes:
                for axis in ("EP", "MOE_TP"):
                    found = self.logic.either(found, self._left_out(part, axis, coverage))
        return found

    def _left_out(self, part: Part, axis: Axis | None, coverage: Coverage) -> Cond:
        """Where the part is still owed over an axis that the consumer leaves out."""
        logic = self.logic
        size = logic.atom(SIZE_OF[axis] if axis else COPIES)
        done = logic.any_of(part.arrives, coverage.over(axis), *_done(part, axis))
        return logic.all_of(part.present, size, logic.negation(done))

    def _copies(self) -> Cond:
        """Several copies: server_args wants as many as context-parallel attention ranks."""
        logic = self.logic
        split = logic.both(logic.atom(SIZE_OF["EP"]), logic.atom(SIZE_OF["MOE_TP"]))
        apart = (ATOMS.attention_dp, ATOMS.local_work, ROLES.combines, ROLES.scatters)
        return logic.all_of(
            logic.atom(COPIES),
            logic.atom(ATOMS.no_dispatch),
            logic.negation(split),
            *(logic.negation(logic.atom(name)) for name in apart),
        )

    def _brought(self, sink: Sink, brought: Value | None) -> Iterator[tuple[Place, Cond]]:
        """Where a stage brings a sum over the whole group, and when that is the one that runs."""
        if sink.kind != "boundary" or not isinstance(brought, Primitive):
            return
        run, at = brought.setting("run"), brought.setting("at")
        if isinstance(run, Partial) and isinstance(at, Const) and isinstance(at.value, Place):
            for value in (*run.positional, *run.keywords.values()):
                for when, one in alternatives(value):
                    word = one.text.rpartition(".")[2] if isinstance(one, Text) else ""
                    if "TP" in ENGINE.library.groups.get(word, ()):
                        yield at.value, when

    def _copied(self, sink: Sink) -> Iterator[Fault]:
        """Sums beside several copies of the experts, other than a fused norm's."""
        logic = self.logic
        not_fused = logic.negation(logic.atom(ROLES.fuses))
        taker = self.machine.stages.get(sink)
        sparse = taker.setting("sparse") if taker is not None else None
        coverage = self.groups.moe_output
        narrow_sink = FALSE
        brought = taker.setting(BROUGHT) if taker is not None else None
        declared = as_declared(brought)
        if sink.kind == "boundary" and coverage is not None and sparse is not None and declared:
            left = logic.both(self.machine.truth(sparse), logic.negation(coverage.whole))
            narrow_sink = logic.both(sink.sums, left)
        # a dense layer is declared dense, and summed over the whole group
        routed = self.routed_in(sink)
        case = logic.all_of(self._copies(), not_fused, sink.when, routed)
        # one layer may be called on several paths
        narrow: dict[tuple[Place, ...], Cond] = {}
        itself: dict[tuple[Place, ...], Place] = {}
        wide: dict[Place, Cond] = {}
        given: dict[Place, Cond] = {}
        for part in sink.parts:
            if part.axes == ("TP",) and part.born:
                some = {p: c for p, c in part.reduced.items() if {"EP", "MOE_TP"} & set(p.axes)}
                summed = logic.any_of(narrow_sink, *some.values())
                whole = logic.any_of(*_done(part, None))
                when = logic.all_of(part.present, summed, logic.negation(whole))
                places = self.machine.built.get(part.origin, (part.place,))
                narrow[places] = logic.either(narrow.get(places, FALSE), when)
                if narrow_sink == FALSE and some:
                    itself.setdefault(places, next(iter(some)))
            elif part.axes == ("EP", "MOE_TP") and part.born:
                owed = logic.both(part.present, logic.negation(part.arrives))
                for place, cond in part.reduced.items():
                    if "TP" in place.axes:
                        when = logic.both(owed, cond)
                        wide[place] = logic.either(wide.get(place, FALSE), when)
                for place, cond in self._brought(sink, brought):
                    when = logic.all_of(owed, cond, sink.sums)
                    given[place] = logic.either(given.get(place, FALSE), when)
        for places, when in narrow.items():
            fault = logic.both(case, when)
            by = itself.get(places)
            yield from self._fault("narrow", "copies", places, sink, fault, summed=by)
        for place, when in wide.items():
            yield from self._fault("wide", "own-copies", (place,), sink, logic.both(case, when))
        for place, when in given.items():
            yield from self._fault("wide", "copies", (place,), sink, logic.both(case, when))


def _done(part: Part, axis: Axis | None) -> Iterable[Cond]:
    """When the part has been summed up over the axis; None is the copies of the experts."""

    def over(place: Place) -> bool:
        return ("TP" if axis is None else axis) in place.axes

    return [cond for place, cond in part.reduced.items() if over(place)]
