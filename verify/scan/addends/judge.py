"""Is what is added into a partial sum of the right kind? Judged where the tensor is consumed.

- *replicated*: every rank adds the same complete value and the sum is completed afterwards;
- *lost*: a slice that is sharded over the group is added where each rank has its own rows, which
  nobody sums up: every rank keeps its own slice and misses the others;
- *mixed*: such a slice is summed up there, over ranks that hold different tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from verify.scan.addends.machine import AddendMachine
from verify.scan.addends.rows import LocalRows, local_rows
from verify.scan.logic import FALSE, TRUE, Cond
from verify.scan.primitives import FLAGS
from verify.scan.state import Sink
from verify.scan.values import Part, Place
from verify.truth import row_bits, rows

import re

Kind = Literal["replicated", "lost", "mixed"]
CONSUMERS = frozenset({"communicator", "boundary"})
WIDE = "tp_size > 1"
_RANK = re.compile(r"_rank\b|\brank\b|rank_in_group")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One addend of the wrong kind.

    `places` are where it was added or, the outermost first, the calls that built it; `when` is over
    the logic of its run, `sparse` whether routed experts are in the same tensor.
    """

    kind: Kind
    places: tuple[Place, ...]
    sink: Sink
    sparse: bool
    when: Cond
    table: int

    @property
    def row(self) -> str:
        """The row with the fewest flags, then the first in flag order."""
        smallest = min(rows(self.table), key=lambda row: (bin(row).count("1"), -row))
        return row_bits(smallest, len(FLAGS))


class Judge:
    """Judges every sink of one run."""

    def __init__(self, machine: AddendMachine, theory: Cond) -> None:
        self.machine = machine
        self.logic = machine.logic
        self.theory = theory

    def faults(self) -> Iterator[Fault]:
        """Every fault of the run."""
        for sink in self.machine.state.sinks:
            local = LocalRows(sparse=None, dense=None)
            if sink.kind in CONSUMERS:
                local = local_rows(self.machine, sink.kind)
            yield from self._replicated(sink, local)
            if sink.kind in CONSUMERS:
                yield from self._sharded(sink, local)

    def _replicated(self, sink: Sink, local: LocalRows) -> Iterator[Fault]:
        """Complete values in a sum that is completed after they were added."""
        logic = self.logic
        gathered = logic.negation(local.sparse) if local.sparse is not None else TRUE
        for part in sink.parts:
            place = self.machine.addends.get(part.origin)
            if place is None:
                continue
            summed = logic.any_of(sink.sums, *part.reduced.values())
            when = logic.all_of(self.theory, sink.when, gathered, part.present, summed)
            yield from self._fault("replicated", (place,), sink, when, sparse=True)

    def _sharded(self, sink: Sink, local: LocalRows) -> Iterator[Fault]:
        """Slices of a sharded layer on rows that only this rank has."""
        logic = self.logic
        routed = logic.any_of(*(part.present for part in sink.parts if "EP" in part.axes))
        for part in sink.parts:
            if part.axes != ("TP",):
                continue
            places = self.machine.built.get(part.origin, (part.place,))
            there = logic.all_of(self.theory, sink.when, part.present)
            for rows_local, among, sparse in (
                (local.sparse, routed, True),
                (local.dense, logic.negation(routed), False),
            ):
                if rows_local is None or routed == FALSE:
                    continue
                when = logic.all_of(there, rows_local, among)
                done = logic.any_of(*part.reduced.values())
                lost = logic.both(when, logic.negation(done))
                yield from self._fault("lost", places, sink, lost, sparse=sparse)
                mixed = logic.both(when, done)
                yield from self._fault("mixed", places, sink, mixed, sparse=sparse)

    def _fault(
        self, kind: Kind, places: tuple[Place, ...], sink: Sink, when: Cond, *, sparse: bool
    ) -> Iterator[Fault]:
        when = self._on_every_rank(self.logic.both(when, self.logic.atom(WIDE)))
        if when != FALSE:
            table = self.logic.table(when, FLAGS)
            yield Fault(kind=kind, places=places, sink=sink, sparse=sparse, when=when, table=table)

    def _on_every_rank(self, when: Cond) -> Cond:
        """The condition where it holds on every rank: what one rank alone adds counts once."""
        for name in self.logic.support(when):
            if _RANK.search(name):
                fixed = (self.logic.assume(when, name, value=value) for value in (False, True))
                when = self.logic.all_of(*fixed)
        return when
