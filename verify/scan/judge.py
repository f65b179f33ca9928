"""Rules: for every partial sum that reaches a consumer, is it added up exactly once?

A part is *done* where it arrived complete or a collective of the layer ran over the axis; the
consumer *sums* by its own condition. Done and summed is double; neither is lost.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from verify.scan.logic import FALSE, Cond, Logic
from verify.scan.primitives import A2A_NONE, FLAGS, Axis
from verify.scan.state import Sink, State
from verify.scan.theory import ATTENTION_DP
from verify.scan.values import Part, Place
from verify.truth import row_bits, rows

# the size that must exceed one for a sum over the axis to be owed
SIZE_OF: dict[Axis, str] = {
    "EP": "moe_ep_size > 1",
    "MOE_TP": "moe_tp_size > 1",
    "TP": "tp_size > 1",
    "ATTN_TP": "attn_tp_size > 1",
}


Kind = Literal["double", "lost", "combined", "backend", "twice"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way a partial sum goes wrong."""

    kind: Kind
    places: tuple[Place, ...]
    sink: Sink
    axis: Axis
    rows: int
    when: Cond
    conditions: tuple[str, ...]

    @property
    def row(self) -> str:
        """The smallest row: fewest flags, then the first in order."""
        smallest = min(rows(self.rows), key=lambda row: (bin(row).count("1"), -row))
        return row_bits(smallest, len(FLAGS))


def faults(state: State, theory: Cond) -> Iterator[Fault]:
    """Every fault of one layer's run."""
    logic = state.logic
    for sink in state.sinks:
        scene = logic.both(theory, sink.when)
        given = logic.both(theory, logic.atom(A2A_NONE))
        if sink.kind == "return" and not state.communicators:
            # without a communicator or boundary the layer cannot serve attention DP
            scene = logic.both(scene, logic.negation(logic.atom(ATTENTION_DP)))
        gathered = _layer_is_gathered(logic, sink)
        sums = logic.both(sink.sums, gathered)
        for part in sink.parts:
            # a shared expert's sum is judged where its layer runs on gathered tokens
            seen = scene if "EP" in part.axes else logic.both(scene, gathered)
            for axis in _axes(part):
                if axis != "ATTN_TP":
                    yield from _part_faults(logic, seen, sink, sums, part, axis, given)


def _axes(part: Part) -> tuple[Axis, ...]:
    """The sums a part owes: one over the whole TP group is, step by step, EP and then MoE-TP."""
    stepwise = any("TP" not in place.axes and "EP" in place.axes for place in part.reduced)
    return ("EP", "MOE_TP") if part.axes == ("TP",) and stepwise else part.axes


def _layer_is_gathered(logic: Logic, sink: Sink) -> Cond:
    """Where the layer runs on gathered tokens: a sparse layer that dispatches them itself does not.

    (`_compute_mlp_mode` and `_ffn_on_rank_rows` say so; then there is nothing to sum.)
    """
    if sink.kind == "fused norm":
        return logic.negation(FALSE)
    sparse = logic.any_of(*(part.present for part in sink.parts if "EP" in part.axes))
    scattered = logic.either(logic.negation(logic.atom(A2A_NONE)), logic.atom("FI"))
    return logic.negation(logic.both(sparse, scattered))


def _part_faults(
    logic: Logic, scene: Cond, sink: Sink, sums: Cond, part: Part, axis: Axis, given: Cond
) -> Iterator[Fault]:
    owed = logic.all_of(scene, part.present, logic.atom(SIZE_OF[axis]))
    if owed == FALSE:
        return
    over_axis = {place: cond for place, cond in part.reduced.items() if axis in place.axes}
    by_block = logic.any_of(*over_axis.values())
    done = logic.either(part.arrives, by_block)

    plain = logic.atom(A2A_NONE)

    def fault(kind: Kind, places: tuple[Place, ...], when: Cond) -> Iterator[Fault]:
        if when != FALSE:
            table = logic.table(when, FLAGS)
            shown = Fault(
                kind=kind, places=places, sink=sink, axis=axis, rows=table, when=when, conditions=()
            )
            bits = tuple(zip(FLAGS, (bit == "1" for bit in shown.row), strict=True))
            one = logic.both(when, logic.row(bits))
            usual = logic.both(one, plain)
            one = usual if usual != FALSE else one
            yield Fault(
                kind=kind,
                places=places,
                sink=sink,
                axis=axis,
                rows=table,
                when=when,
                conditions=conditions(logic, one, logic.both(given, logic.row(bits))),
            )

    # tokens are dispatched over ranks only where a communicator or a boundary scatters them
    combined = part.arrives if sink.kind != "return" else FALSE
    for place, cond in over_axis.items():
        yield from fault("double", (place,), logic.all_of(owed, cond, sums))
        again = logic.all_of(owed, cond, combined)
        yield from fault("combined", (place,), logic.both(again, plain))
        yield from fault("backend", (place,), logic.both(again, logic.negation(plain)))
    for (first, a), (second, b) in combinations(over_axis.items(), 2):
        yield from fault("twice", (first, second), logic.all_of(owed, a, b))
    places = tuple(over_axis) or (part.place,)
    lost = logic.all_of(owed, logic.negation(done), logic.negation(sums))
    yield from fault("lost", places, lost)


def conditions(logic: Logic, case: Cond, given: Cond) -> tuple[str, ...]:
    """What must hold, besides the row and the groups' sizes, for the case to happen."""
    found = []
    for name, value in logic.witness(case):
        wanted = logic.atom(name) if value else logic.negation(logic.atom(name))
        # what every such case needs, and what does not follow from the row alone
        needed = logic.implies(case, wanted) and not logic.implies(given, wanted)
        if needed and name not in FLAGS and not name.endswith("_size > 1"):
            found.append(name if value else f"not {name}")
    return tuple(found)
