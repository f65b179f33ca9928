"""A call that comes back to itself: its result as the least fixed point of its own body.

A method that cuts its rows in chunks calls itself on each. The call inside is run with the outcome
of the tests that lead back to it turned round (the chunk is small enough); what it gives back
there, and what it gives when a call inside it gives that, and so on, settles after a few turns.
Conditions inside speak of the chunk and those outside of all rows, in the same words: the turned
tests are therefore taken as settled in what comes back, and say nothing about the rows outside.
"""

import re
from collections.abc import Callable, Sequence

from verify.interpreter.state import Called, Frame, State, Summary, UnresolvedError
from verify.interpreter.values import (
    NONE,
    Choice,
    Items,
    Mapped,
    Part,
    Tensor,
    Truth,
    Value,
    one_of,
    parts_of,
)
from verify.logic.diagrams import FALSE, Cond, Logic

MAX_TURNS = 5

Settled = Sequence[tuple[str, bool]]


def come_back(
    state: State, who: Called, arguments: Sequence[Value], run: Callable[[], Frame]
) -> Value | None:
    """The result of a call inside a call of the same; None where it is to be run as it is.

    `run` runs the body once. Raises `UnresolvedError` where the result does not settle, or where
    the call inside is handed another sum than the one before.
    """
    frames, logic = state.frames, state.logic
    at = next((n for n in reversed(range(len(frames))) if frames[n].who == who), None)
    if at is None:
        return None
    takes = outline(logic, *arguments)
    known = state.summaries.get(who)
    if known is not None:
        if known.takes != takes:
            raise UnresolvedError("a call that comes back to itself with another sum")
        if known.value is None:
            state.frame.live = FALSE
        return known.value or NONE
    led = logic.all_of(*(frame.live for frame in frames[at:]))
    outcomes = turned_round(logic, led, state.index.library.relevant)
    if outcomes is None:
        return None
    summary = state.summaries[who] = Summary(takes)
    inside = len(state.summaries) > 1
    try:
        for _ in range(MAX_TURNS):
            before, after = summary.value, _returned(logic, run(), outcomes)
            summary.value = after
            if after is None and inside:
                # not while what it waits for is said not to return either
                state.frame.live = FALSE
                return NONE
            if before is None or after is None:
                continue
            if outline(logic, before) == outline(logic, after):
                return after
    finally:
        del state.summaries[who]
    raise UnresolvedError("a call that comes back to itself does not settle")


def _returned(logic: Logic, frame: Frame, outcomes: Settled) -> Value | None:
    """What a call gave back where tests have these outcomes; None where it does not return."""
    pairs = [
        (logic.fix(cond, outcomes), settled(logic, value, outcomes))
        for cond, value in (*frame.returns, (frame.live, NONE))
    ]
    pairs = [pair for pair in pairs if pair[0] != FALSE]
    return one_of(logic, pairs) if pairs else None


def turned_round(logic: Logic, led: Cond, relevant: re.Pattern[str]) -> Settled | None:
    """Outcomes of tests with which a call that `led` back to itself does not; None without any.

    What decides about sums (`relevant`) is the same in the call and in the one inside it. Of single
    tests the last that was made comes first: it is the one about chunks.
    """
    names = [name for name in logic.support(led) if not relevant.search(name)]
    for name in reversed(names):
        for value in (False, True):
            if logic.assume(led, name, value=value) == FALSE:
                return ((name, value),)
    never = logic.negation(logic.shadow(led, frozenset(names)))
    return None if never == FALSE else logic.witness(never)


def outline(logic: Logic, *values: Value) -> object:
    """Which partial sums values hold, when, and when they were reduced."""
    return tuple(
        frozenset(
            (part.origin, part.present, frozenset(part.reduced.items()))
            for part in parts_of(logic, value)
            if part.present != FALSE
        )
        for value in values
    )


def settled(logic: Logic, value: Value, outcomes: Settled) -> Value:
    """The value where tests have these outcomes."""

    def fix(cond: Cond) -> Cond:
        return logic.fix(cond, outcomes)

    match value:
        case Truth(cond):
            return Truth(fix(cond))
        case Tensor(parts):
            return Tensor(tuple(_part(part, fix) for part in parts))
        case Items(values):
            return Items(tuple(settled(logic, item, outcomes) for item in values))
        case Mapped(named):
            return Mapped({key: settled(logic, item, outcomes) for key, item in named.items()})
        case Choice(pairs):
            held = [(fix(cond), settled(logic, item, outcomes)) for cond, item in pairs]
            return one_of(logic, [pair for pair in held if pair[0] != FALSE])
    return value


def _part(part: Part, fix: Callable[[Cond], Cond]) -> Part:
    reduced = {place: fix(cond) for place, cond in part.reduced.items()}
    return Part(part.origin, fix(part.present), reduced, part.birth)
