"""Rules: for every partial sum that reaches a consumer, is it added up exactly once?

A part is *done* where it arrived complete or a collective of the layer ran over the axis; the
consumer *sums* by its own condition. Done and summed is double; neither is lost.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from verify.engines.sources import reading
from verify.interpreter.state import Consumer, Sink, State
from verify.interpreter.values import Axis, Part, Place
from verify.logic.diagrams import FALSE, TRUE, Cond, Logic
from verify.logic.truth import row_bits, rows

# the size that must exceed one for a sum over the axis to be owed
SIZE_OF: dict[Axis, str] = {
    "EP": "moe_ep_size > 1",
    "MOE_TP": "moe_tp_size > 1",
    "TP": "tp_size > 1",
    "ATTN_TP": "attn_tp_size > 1",
}

# where ranks have rows of their own
OWN_ROWS = "attn_dp_size > 1"
ENGINE = reading()
FLAGS, ROLES, ATOMS = ENGINE.flags, ENGINE.roles, ENGINE.atoms
_EMPTY = re.compile(r"(?:shape\[0\]|num_tokens) (?P<sign>==|>) 0$")
# a call without arguments: it may answer what the server's options say
_CALL = re.compile(r"\w+\(\)")
# a field of what a call without arguments returns, compared with what is written out
_CONSTANT = r"(?:\w+|'[^']*'|[(\[{][^()]*[)\]}])"
_OPTION = re.compile(rf"\w+\(\)(?:\.\w+)+(?: (?:[=!<>]=|<|>|is|is not|in|not in) {_CONSTANT})?")
DISPATCH_ASKED = ATOMS.no_dispatch.rpartition(".")[0]
Kind = Literal["double", "lost", "combined", "backend", "twice", "past the end"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way a partial sum goes wrong; `backends`: with which all-to-all backends, if any.

    `combined` is the call whose output a dispatcher has summed up before, where that is what is
    wrong.
    """

    kind: Kind
    places: tuple[Place, ...]
    consumer: Consumer
    axis: Axis
    rows: int
    conditions: tuple[str, ...]
    backends: tuple[str, ...] = ()
    combined: Place | None = None

    @property
    def row(self) -> str:
        """The smallest row in which it happens."""
        return smallest_row(self.rows)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One sink seen under the theory: what it takes, when, and who can be there."""

    logic: Logic
    theory: Cond
    sink: Sink
    sums: Cond
    plain: Cond
    known: frozenset[str]
    backends: tuple[str, ...]


def faults(state: State, theory: Cond, backends: tuple[str, ...] = ()) -> Iterator[Fault]:
    """Every fault of one layer's run; `backends` are the all-to-all backends that models know."""
    logic = state.logic
    plain = _plain(logic)
    for sink in state.sinks:
        given = theory
        if sink.kind == "return" and not state.communicators:
            # without a communicator or boundary the layer cannot serve attention DP
            given = logic.both(given, logic.negation(logic.atom(ATOMS.attention_dp)))
        if sink.kind == "scatter":
            # who moves rows back by hand has gathered them by hand: no dispatcher moves them
            dispatched = logic.either(logic.negation(plain), logic.atom(ROLES.combines))
            given = logic.both(given, logic.negation(dispatched))
        gathered = _layer_is_gathered(logic, sink, plain)
        scene = Scene(
            logic=logic,
            theory=given,
            sink=sink,
            sums=logic.both(sink.sums, gathered),
            plain=plain,
            known=frozenset(logic.support(given)) | frozenset(FLAGS),
            backends=backends,
        )
        for part in sink.parts:
            # a shared expert's sum is judged where its layer runs on gathered tokens
            when = sink.when if "EP" in part.axes else logic.both(sink.when, gathered)
            for axis in _axes(part):
                if axis != "ATTN_TP":
                    yield from _part_faults(scene, when, part, axis)


def past_the_end(state: State) -> Iterator[Fault]:
    """A layer that leaves its sum to the next one, also when it is the last."""
    fused = [sink for sink in state.sinks if sink.kind == "fused norm"]
    if fused and state.past_the_end:
        # the row, as a number
        only_fuses = 1 << (len(FLAGS) - 1 - FLAGS.index(ROLES.fuses))
        yield Fault(
            kind="past the end",
            places=(state.past_the_end[0],),
            consumer=fused[0].consumer,
            axis="TP",
            rows=1 << only_fuses,
            conditions=(),
        )


def _axes(part: Part) -> tuple[Axis, ...]:
    """The sums a part owes: one over the whole TP group is, step by step, EP and then MoE-TP."""
    stepwise = any("TP" not in place.axes and "EP" in place.axes for place in part.reduced)
    return ("EP", "MOE_TP") if part.axes == ("TP",) and stepwise else part.axes


def _layer_is_gathered(logic: Logic, sink: Sink, plain: Cond) -> Cond:
    """Where the layer runs on gathered tokens: a sparse layer that dispatches them itself does not.

    (`_compute_mlp_mode` and `_ffn_on_rank_rows` say so; then there is nothing to sum.)
    """
    if sink.kind == "fused norm":
        return TRUE
    sparse = logic.any_of(*(part.present for part in sink.parts if "EP" in part.axes))
    dispatched = logic.either(logic.negation(plain), logic.atom(ROLES.combines))
    return logic.negation(logic.both(sparse, dispatched))


def _plain(logic: Logic) -> Cond:
    """No all-to-all backend, and no data-parallel weights where the source knows them."""
    plain = logic.atom(ATOMS.no_dispatch)
    if ATOMS.local_work in logic.atoms():
        plain = logic.both(plain, logic.negation(logic.atom(ATOMS.local_work)))
    return plain


def _part_faults(scene: Scene, when: Cond, part: Part, axis: Axis) -> Iterator[Fault]:
    logic, sums = scene.logic, scene.sums
    owed = logic.all_of(when, part.present, logic.atom(SIZE_OF[axis]))
    if owed == FALSE:
        return
    over_axis = {place: cond for place, cond in part.reduced.items() if axis in place.axes}
    done = logic.either(part.arrives, logic.any_of(*over_axis.values()))
    for place, cond in over_axis.items():
        yield from _fault(scene, "double", (place,), axis, logic.all_of(owed, cond, sums))
        again = logic.all_of(owed, cond, part.arrives)
        other = logic.both(again, logic.negation(scene.plain))
        found = (
            *_fault(scene, "combined", (place,), axis, logic.both(again, scene.plain)),
            *_fault(scene, "backend", (place,), axis, other),
        )
        yield from (replace(one, combined=part.place) for one in found)
    for (first, a), (second, b) in combinations(over_axis.items(), 2):
        yield from _fault(scene, "twice", (first, second), axis, logic.all_of(owed, a, b))
    if not part.born:
        # whether it was owed at all is not known: not summing it may be right
        return
    places = tuple(over_axis) or (part.place,)
    # what is left out beside a dispatcher's combine is for the rules about addends
    lost = logic.all_of(scene.plain, logic.negation(sums), logic.negation(done), owed)
    yield from _fault(scene, "lost", places, axis, lost)


def _fault(
    scene: Scene, kind: Kind, places: tuple[Place, ...], axis: Axis, case: Cond
) -> Iterator[Fault]:
    """The fault, where some configuration reaches the case."""
    logic = scene.logic
    case = with_tokens(logic, case)
    # what the theory says nothing about is free: it need not be carried along
    reach = logic.both(logic.shadow(case, scene.known), scene.theory)
    if reach == FALSE:
        return
    backends = tuple(_backends(scene, case)) if kind == "backend" else ()
    if kind == "backend" and not backends:
        return
    table = logic.table(reach, FLAGS)
    bits = _bits(smallest_row(table))
    one = logic.both(reach, logic.row(bits))
    usual = logic.both(one, scene.plain)
    given = logic.both(scene.theory, logic.row(bits))
    if usual != FALSE:
        one, given = usual, logic.both(given, scene.plain)
    values = logic.witness(one)
    needed = [*_needed(logic, one, given, values)]
    rest = logic.fix(case, values)
    needed += _needed(logic, rest, TRUE, logic.witness(rest))
    needed += one_of(logic, rest, needed, scene.known)
    whole = logic.negation(logic.atom(SIZE_OF["ATTN_TP"]))
    if OWN_ROWS not in needed and logic.implies(logic.both(case, logic.row(bits)), whole):
        # attention is whole on each of several ranks: they have rows of their own
        needed.append(OWN_ROWS)
    yield Fault(
        kind=kind,
        places=places,
        consumer=scene.sink.consumer,
        axis=axis,
        rows=table,
        conditions=tuple(needed),
        backends=backends,
    )


def with_tokens(logic: Logic, when: Cond) -> Cond:
    """The condition where the batch is not empty: else there is nothing to sum."""
    for name in logic.support(when):
        match = name.endswith(" 0") and _EMPTY.search(name)
        if match:
            when = logic.assume(when, name, value=match["sign"] == ">")
    return when


def _backends(scene: Scene, case: Cond) -> Iterator[str]:
    """The backends with which it happens: one at a time is chosen."""
    logic = scene.logic
    atoms = {name: logic.atom(f"{DISPATCH_ASKED}.is_{name}()") for name in scene.backends}
    for name, chosen in atoms.items():
        others = (logic.negation(atom) for other, atom in atoms.items() if other != name)
        alone = logic.all_of(chosen, logic.negation(logic.atom(ATOMS.no_dispatch)), *others)
        if logic.all_of(case, scene.theory, alone) != FALSE:
            yield name


def _needed(
    logic: Logic, case: Cond, given: Cond, values: tuple[tuple[str, bool], ...]
) -> Iterator[str]:
    """What every such case needs, and what does not follow from the row alone."""
    for name, value in values:
        if name not in FLAGS and not name.endswith("_size > 1"):
            wanted = logic.atom(name) if value else logic.negation(logic.atom(name))
            if logic.implies(case, wanted) and not logic.implies(given, wanted):
                yield name if value else f"not {name}"


def one_of(
    logic: Logic, case: Cond, needed: Iterable[str], known: Collection[str]
) -> Iterator[str]:
    """Of which of the server's options a case needs one, beside what it needs for sure."""
    names = {
        name
        for name in logic.support(case)
        if _OPTION.fullmatch(name) and not name.endswith("_size > 1") and name not in known
    }
    left = logic.shadow(case, frozenset(names))
    for text in needed:
        name = text.removeprefix("not ")
        left = logic.assume(left, name, value=name == text)
    if len(logic.support(left)) > 1:
        yield f"({logic.text(left)})"


def asks_server(condition: str) -> bool:
    """Whether a condition may ask for the server's options."""
    name = condition.removeprefix("not ")
    return bool(_CALL.fullmatch(name) or _OPTION.fullmatch(name))


def smallest_row(table: int) -> str:
    """The row with the fewest flags, then the smallest as a number."""
    smallest = min(rows(table), key=lambda row: (row.bit_count(), row))
    return row_bits(smallest, len(FLAGS))


def _bits(row: str) -> tuple[tuple[str, bool], ...]:
    return tuple((flag, bit == "1") for flag, bit in zip(FLAGS, row, strict=True))
