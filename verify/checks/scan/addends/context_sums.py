"""Is a dense MLP's sum taken over ranks of a context group, each of which has tokens of its own?

A sharded MLP's own reduction runs over the whole tensor-parallel group, which has the context ranks
in it: unless the communicator gathers their rows before, parts of different tokens are added
(#38078).
"""

from collections.abc import Iterator

from verify.checks.scan.addends.judge import Fault, Judge
from verify.checks.scan.addends.machine import SPARSE, AddendMachine
from verify.engines.sources import reading
from verify.engines.traits import ContextRows
from verify.interpreter.index import Class
from verify.interpreter.state import Sink
from verify.interpreter.values import Place, Primitive
from verify.logic.diagrams import FALSE, Cond

ENGINE = reading()


def context_sums(machine: AddendMachine, theory: Cond, layer: Class) -> tuple[Fault, ...]:
    """Judge a run that has ended."""
    return tuple(ContextSumJudge(machine, theory, layer).faults())


class ContextSumJudge(Judge):
    """Judges what one run sums up of rows that only one context rank has."""

    def __init__(self, machine: AddendMachine, theory: Cond, layer: Class) -> None:
        super().__init__(machine, theory, ())
        self.layer = layer

    def faults(self) -> Iterator[Fault]:
        """Every sum of a dense MLP over rows of different tokens."""
        logic = self.logic
        for sink in self.machine.state.sinks:
            rows = self._rows(sink) if sink.kind == "communicator" else None
            if rows is None:
                continue
            found: dict[Place, Cond] = {}
            dense = logic.negation(self.routed_in(sink))
            alone = logic.negation(logic.atom(ENGINE.atoms.attention_dp))
            for part in sink.parts:
                for place, reduced in part.reduced.items() if part.axes == ("TP",) else ():
                    when = logic.all_of(sink.when, part.present, reduced, dense, alone, rows.left)
                    found[place] = logic.either(found.get(place, FALSE), when)
            for place, when in found.items():
                asked = rows.environment
                yield from self._fault("mixed", "context", (place,), sink, when, asked=asked)

    def _rows(self, sink: Sink) -> ContextRows | None:
        """What the layer's communicator makes of the rows of a context group."""
        taker = self.machine.stages.get(sink)
        if taker is None:
            return None
        modes = taker.setting("layer_scatter_modes")
        sparse = modes.setting(SPARSE) if isinstance(modes, Primitive) else None
        return ENGINE.traits.context_rows(self.machine, self.layer, taker, sparse)
