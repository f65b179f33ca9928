"""What the interpreter knows about a value: a truth, a text, an object, or a sum still owed.

A tensor is described only by the partial sums in it. Conditions inside values are absolute: they
say under which condition, counted from the start of the run, a part is there or was reduced.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias
from zlib import crc32

from verify.scan.index import Class, Function
from verify.scan.logic import FALSE, TRUE, Cond, Logic
from verify.scan.primitives import Axis

MAX_ALTERNATIVES = 12
MAX_TEXT = 160


@dataclass(frozen=True, kw_only=True)
class Place:
    """A call in the source: which statement of which method sums up or leaves a partial sum."""

    file: str
    line: int
    column: int
    cls: str | None
    method: str
    collective: str
    axes: tuple[Axis, ...]


@dataclass(frozen=True, eq=False)
class Part:
    """One partial sum inside a tensor.

    `origin` tells two parts apart; `axes` are the groups it must be summed over; `arrives` is where
    it is complete when it is born (a dispatcher's combine summed it up); `born` says whether that
    was seen, or only that somebody summed it up; `present` where the tensor holds it; `reduced`
    where which call summed it up.
    """

    origin: tuple[object, ...]
    place: Place
    axes: tuple[Axis, ...]
    present: Cond
    arrives: Cond = FALSE
    born: bool = True
    reduced: Mapping[Place, Cond] = field(default_factory=dict)


@dataclass(frozen=True)
class Const:
    """None, a number, a string: anything but a truth value."""

    value: object


@dataclass(frozen=True)
class Truth:
    """A truth value."""

    cond: Cond


@dataclass(frozen=True)
class Text:
    """Something known only by the expression that makes it."""

    text: str


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor with the partial sums in it."""

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Items:
    """A tuple or list."""

    values: "tuple[Value, ...]"


@dataclass(frozen=True, eq=False)
class Mapped:
    """A dictionary with constant keys."""

    values: "Mapping[str, Value]"


@dataclass(eq=False)
class Instance:
    """An object of a class of the source; `assigned` says when an attribute was set at all."""

    cls: Class
    attributes: "dict[str, Value]" = field(default_factory=dict)
    assigned: dict[str, Cond] = field(default_factory=dict)


@dataclass(frozen=True)
class Routine:
    """A function, perhaps bound to an object, or a class that can be called."""

    target: Function | Class
    bound: "Value | None" = None
    scope: "Mapping[str, Value] | None" = field(default=None, compare=False)


@dataclass(frozen=True, eq=False)
class Partial:
    """functools.partial."""

    target: "Value"
    positional: "tuple[Value, ...]"
    keywords: "Mapping[str, Value]"


@dataclass(frozen=True)
class Primitive:
    """One of upstream's building blocks: `kind` says which, `settings` how it was built."""

    kind: str
    settings: "tuple[tuple[str, Value], ...]" = ()

    def setting(self, name: str) -> "Value | None":
        """The constructor's argument of that name."""
        return dict(self.settings).get(name)


@dataclass(frozen=True, eq=False)
class Choice:
    """One of several values; the conditions exclude each other."""

    alternatives: "tuple[tuple[Cond, Value], ...]"


Value: TypeAlias = (
    Const
    | Truth
    | Text
    | Tensor
    | Items
    | Mapped
    | Instance
    | Routine
    | Partial
    | Primitive
    | Choice
)

NONE = Const(None)


def clipped(text: str) -> Text:
    """A text of bounded length; a checksum keeps what was cut off different."""
    if len(text) > MAX_TEXT:
        return Text(f"{text[:MAX_TEXT]}...{crc32(text.encode()):08x}")
    return Text(text)


def alternatives(value: Value) -> tuple[tuple[Cond, Value], ...]:
    """The value as alternatives, a plain one as the only."""
    return value.alternatives if isinstance(value, Choice) else ((TRUE, value),)


def parts_of(logic: Logic, value: Value) -> tuple[Part, ...]:
    """Every partial sum in a value, alternatives and tuples included."""
    match value:
        case Tensor(parts):
            return parts
        case Items(values):
            return union(logic, *(parts_of(logic, item) for item in values))
        case Choice(pairs):
            return union(
                logic,
                *(restricted(logic, cond, item) for cond, item in pairs),
            )
    return ()


def union(logic: Logic, *groups: tuple[Part, ...]) -> tuple[Part, ...]:
    """The parts of a sum of tensors."""
    found: dict[tuple[object, ...], Part] = {}
    for group in groups:
        for part in group:
            known = found.get(part.origin)
            if known is None:
                found[part.origin] = part
            elif known is not part:
                reduced = dict(known.reduced)
                for place, cond in part.reduced.items():
                    reduced[place] = logic.either(reduced.get(place, FALSE), cond)
                found[part.origin] = replace(
                    known, present=logic.either(known.present, part.present), reduced=reduced
                )
    return tuple(found.values())


def merge(logic: Logic, test: Cond, then: Value, otherwise: Value) -> Value:
    """The value that is `then` where `test` holds, else `otherwise`."""
    if test == TRUE or then is otherwise:
        return then
    if test == FALSE:
        return otherwise
    if isinstance(then, Truth) and isinstance(otherwise, Truth):
        return Truth(logic.choose(test, then.cond, otherwise.cond))
    kinds = {type(then), type(otherwise)}
    if kinds <= {Tensor, Text} and kinds != {Text}:
        return _merge_tensors(logic, test, then, otherwise)
    if isinstance(then, Items) and isinstance(otherwise, Items):
        pairs = tuple(zip(then.values, otherwise.values, strict=False))
        if len(pairs) == len(then.values) == len(otherwise.values):
            return Items(tuple(merge(logic, test, a, b) for a, b in pairs))
    if then == otherwise:
        return then
    if _dull(then) and _dull(otherwise):
        # nothing is owed in either: which of them it is need not be told apart
        return Text("either")
    return _choice(logic, test, then, otherwise)


def _dull(value: Value) -> bool:
    """Whether nothing that is followed depends on the value."""
    if isinstance(value, Items):
        return all(map(_dull, value.values))
    if isinstance(value, Mapped):
        return all(map(_dull, value.values.values()))
    return isinstance(value, Text)


def _merge_tensors(logic: Logic, test: Cond, then: Value, otherwise: Value) -> Tensor:
    """Both sides' parts; one that both have needs no more than what differs to be told apart."""
    first = {part.origin: part for part in parts_of(logic, then)}
    second = {part.origin: part for part in parts_of(logic, otherwise)}
    gone = logic.negation(test)
    merged: list[Part] = []
    for origin, part in first.items():
        other = second.pop(origin, None)
        if other is None:
            merged.append(_under(logic, test, part))
        elif other is part:
            merged.append(part)
        else:
            places = {**part.reduced, **other.reduced}
            merged.append(
                replace(
                    part,
                    present=logic.choose(test, part.present, other.present),
                    reduced={
                        place: logic.choose(
                            test, part.reduced.get(place, FALSE), other.reduced.get(place, FALSE)
                        )
                        for place in places
                    },
                )
            )
    return Tensor((*merged, *(_under(logic, gone, part) for part in second.values())))


def restricted(logic: Logic, cond: Cond, value: Value) -> tuple[Part, ...]:
    """The parts of `value` as they count where only `cond` leads to it."""
    return tuple(_under(logic, cond, part) for part in parts_of(logic, value))


def _under(logic: Logic, cond: Cond, part: Part) -> Part:
    if cond == TRUE:
        return part
    return replace(
        part,
        present=logic.both(cond, part.present),
        reduced={place: logic.both(cond, where) for place, where in part.reduced.items()},
    )


def _choice(logic: Logic, test: Cond, then: Value, otherwise: Value) -> Value:
    pairs: list[tuple[Cond, Value]] = []
    for side, value in ((test, then), (logic.negation(test), otherwise)):
        for cond, item in alternatives(value):
            where = logic.both(side, cond)
            if where == FALSE:
                continue
            for index, (other, known) in enumerate(pairs):
                if known == item:
                    pairs[index] = (logic.either(other, where), known)
                    break
                if isinstance(known, Tensor) and isinstance(item, Tensor):
                    joined = union(
                        logic, restricted(logic, other, known), restricted(logic, where, item)
                    )
                    pairs[index] = (logic.either(other, where), Tensor(joined))
                    break
            else:
                pairs.append((where, item))
    if len(pairs) == 1:
        return pairs[0][1]
    if len(pairs) > MAX_ALTERNATIVES:
        parts = parts_of(logic, Choice(tuple(pairs)))
        return Tensor(parts) if parts else Text("one of many")
    return Choice(tuple(pairs))
