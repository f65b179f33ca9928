"""Are rows that only this rank has summed up over other ranks?

There a dense MLP is replicated, or a dispatcher has returned every row complete. A reduction, or
the next layer's fused norm, then adds different tokens to each other (#19918). So does one of
experts without a dispatcher: a backend that moves no tokens makes rows a rank's own all the same.
Where nobody sums there either, a token is without the experts of other ranks.
"""

from collections.abc import Iterator

from verify.checks.scan.addends.judge import (
    Fault,
    Judge,
    known_backends,
    moving_backends,
    taken_for_none,
)
from verify.checks.scan.addends.machine import SPARSE, AddendMachine
from verify.checks.scan.judge import SIZE_OF
from verify.engines.sources import reading
from verify.engines.traits import LocalRows, ReductionGroups
from verify.interpreter.state import Sink
from verify.interpreter.values import Place, Primitive
from verify.logic.diagrams import FALSE, Cond

ENGINE = reading()


def local_sums(machine: AddendMachine, theory: Cond, groups: ReductionGroups) -> tuple[Fault, ...]:
    """Judge a run that has ended."""
    index = machine.state.index
    moving = moving_backends(index)
    unmoved = tuple(name for name in known_backends(index) if name not in moving)
    return tuple(LocalSumJudge(machine, theory, unmoved, groups.fuses_at).faults())


class LocalSumJudge(Judge):
    """Judges what one run sums up of rows that are only this rank's."""

    def __init__(
        self,
        machine: AddendMachine,
        theory: Cond,
        unmoved: tuple[str, ...],
        fuses_at: Place | None,
    ) -> None:
        super().__init__(machine, theory, unmoved)
        self.fuses_at = fuses_at

    def faults(self) -> Iterator[Fault]:
        """Every sum over rows of different tokens."""
        for sink in self.machine.state.sinks:
            if sink.kind == "fused norm":
                yield from self._fused(sink)
            elif self.machine.resummed:
                yield from self._resummed(sink)
            if self.backends:
                yield from self._unmoved(sink)

    def _rows(self) -> LocalRows:
        """What the layer's communicators say of its rows, where they all say the same."""
        modes = self.machine.modes
        first = modes[0] if modes else None
        if not isinstance(first, Primitive) or any(one != first for one in modes):
            return LocalRows()
        if first.kind != "scatter modes":
            return LocalRows()
        return ENGINE.traits.communicator_rows(self.machine, first.setting(SPARSE))

    def _fused(self, sink: Sink) -> Iterator[Fault]:
        logic, local = self.logic, self._rows()
        if self.fuses_at is None or local.dense is None or self.routed == FALSE:
            return
        routed = logic.any_of(*(part.present for part in sink.parts if "EP" in part.axes))
        dense = logic.any_of(*(part.present for part in sink.parts if part.axes in ((), ("TP",))))
        alone = logic.all_of(dense, logic.negation(routed), local.dense)
        asked = [name for name in logic.support(self.theory) if ENGINE.atoms.asks_rows in name]
        when = logic.all_of(
            sink.when, alone, logic.atom(ENGINE.roles.fuses), *map(logic.atom, asked)
        )
        yield from self._fault("mixed", "fused-local", (self.fuses_at,), sink, when)

    def _resummed(self, sink: Sink) -> Iterator[Fault]:
        local = self._local_rows(sink)
        if local.dense is not None:
            for place, summed in self.machine.resummed.items():
                when = self.logic.all_of(sink.when, summed, local.dense)
                yield from self._fault("mixed", "resummed", (place,), sink, when)

    def _unmoved(self, sink: Sink) -> Iterator[Fault]:
        """Experts' sums with a backend that moves no tokens to them."""
        logic, sparse = self.logic, self._local_rows(sink).sparse
        if sparse is None:
            return
        found: dict[Place, Cond] = {}
        never = FALSE
        there = logic.all_of(sink.when, sparse, logic.atom(SIZE_OF["EP"]))
        for part in sink.parts:
            if "EP" not in part.axes:
                continue
            here = logic.both(there, part.present)
            for place, reduced in part.reduced.items():
                found[place] = logic.either(found.get(place, FALSE), logic.both(here, reduced))
            summed = logic.any_of(*part.reduced.values())
            never = logic.either(never, logic.both(here, logic.negation(summed)))
        for place, when in found.items():
            yield from self._fault("mixed", "unmoved", (place,), sink, when)
        # who has all experts needs no others; what is left to a flag's sum is for another rule
        alone = logic.atom(ENGINE.atoms.local_work)
        never = logic.all_of(never, self._stays(), logic.negation(alone))
        for backend in self.backends:
            asked = taken_for_none(self.machine.state.index, backend)
            if asked is not None:
                when = logic.both(never, logic.atom(self._atom(backend)))
                yield from self._fault("lost", "unsent", (asked,), sink, when)
