"""Where a stage boundary completes the sum that a layer leaves it."""

from verify.checks.scan.addends.machine import AddendMachine
from verify.engines.sources import reading
from verify.interpreter.state import Sink
from verify.interpreter.values import NONE, Place, Primitive, Text, Value
from verify.logic.diagrams import FALSE, Cond

ENGINE = reading()
# a stage that brings it is summed by it, and not over the group that the stage is declared with
BROUGHT = "sum_impl"


def completed_at(machine: AddendMachine, sink: Sink, when: Cond) -> Place | None:
    """The boundary's own call, where the stage is of one kind in all of `when`; else None."""
    taker = machine.stages.get(sink)
    if sink.kind != "boundary" or taker is None or not as_declared(taker.setting(BROUGHT)):
        return None
    declared, logic = taker.setting("sparse"), machine.logic
    if declared is None:
        return None
    sparse, index = machine.truth(declared), machine.state.index
    if logic.implies(when, sparse):
        return ENGINE.traits.boundary_sum(index, "sparse")
    # a dense layer of a size of its own is summed over fewer ranks
    usual = (taker.setting("dense_tp_size") or NONE) == NONE
    if usual and logic.both(when, sparse) == FALSE:
        return ENGINE.traits.boundary_sum(index, "dense")
    return None


def as_declared(brought: Value | None) -> bool:
    """Whether a stage that brings this is summed over the group that it is declared with."""
    if isinstance(brought, Primitive) and brought.kind == "own sum":
        return brought.setting("run") == NONE
    return brought in (None, NONE, Text("default"))
