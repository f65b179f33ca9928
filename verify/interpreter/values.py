"""What the interpreter knows about a value: a truth, a text, an object, or a sum still owed.

A tensor is described only by the partial sums in it. Conditions inside values are absolute: they
say under which condition, counted from the start of the run, a part is there or was reduced.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import TypeAlias
from zlib import crc32

from verify.interpreter.index import Class, Function
from verify.logic.diagrams import FALSE, TRUE, Cond, Logic

MAX_ALTERNATIVES = 12
MAX_TEXT = 160


Axis: TypeAlias = str  # a group that something is split over, as its library names it
Key: TypeAlias = tuple[str, int, int]  # file, line and column of a call


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

    @property
    def key(self) -> Key:
        """Where it is."""
        return (self.file, self.line, self.column)


Reduced: TypeAlias = Mapping[Place, Cond]


@dataclass(frozen=True, eq=False, kw_only=True)
class Origin:
    """What a partial sum comes from; a run has one for all births that nothing tells apart.

    `axes` are the groups it must be summed over; `arrives` is where it is complete when it is born
    (a dispatcher's combine summed it up); `born` says whether that was seen, or only that somebody
    summed it up; `told` is what else tells it apart.
    """

    place: Place
    axes: tuple[Axis, ...]
    arrives: Cond
    born: bool
    told: tuple[object, ...]


@dataclass(frozen=True, eq=False)
class Part:
    """One partial sum inside a tensor.

    `present` is where the tensor holds it; `reduced` where which call summed it up; `birth` tells
    it from others of its origin.
    """

    origin: Origin
    present: Cond
    reduced: Reduced = field(default_factory=dict)
    birth: object = field(default_factory=object)

    @property
    def place(self) -> Place:
        """Where it is born."""
        return self.origin.place

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The groups it must be summed over."""
        return self.origin.axes

    @property
    def born(self) -> bool:
        """Whether its birth was seen, or only that somebody summed it up."""
        return self.origin.born

    @property
    def arrives(self) -> Cond:
        """Where it is complete when it is born."""
        return self.origin.arrives


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
    """One of a library's building blocks: `kind` says which, `settings` how it was built."""

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


@lru_cache(maxsize=10_000)
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
            return _exclusive(logic, [(cond, parts_of(logic, item)) for cond, item in pairs])
    return ()


def union(logic: Logic, *groups: tuple[Part, ...]) -> tuple[Part, ...]:
    """The parts of a sum of tensors; those of one origin that are summed up alike are one."""
    held = [group for group in groups if group]
    if len(held) < 2:
        return held[0] if held else ()
    found: dict[Origin, list[Part]] = {}
    for part in chain.from_iterable(held):
        known = found.setdefault(part.origin, [])
        for index, other in enumerate(known):
            if other.birth is part.birth or other.reduced == part.reduced:
                known[index] = _both_there(logic, other, part)
                break
        else:
            known.append(part)
    return tuple(chain.from_iterable(found.values()))


def _both_there(logic: Logic, part: Part, other: Part) -> Part:
    if part is other:
        return part
    reduced = part.reduced
    if reduced != other.reduced:
        reduced = {
            place: logic.either(reduced.get(place, FALSE), other.reduced.get(place, FALSE))
            for place in {**reduced, **other.reduced}
        }
    present = logic.either(part.present, other.present)
    return Part(part.origin, present, reduced, _birth((part, other)))


def _birth(parts: Sequence[Part]) -> object:
    """Their common one, or a new one."""
    first = parts[0].birth
    return first if all(part.birth is first for part in parts) else object()


def _exclusive(
    logic: Logic, alternatives: Sequence[tuple[Cond, tuple[Part, ...]]]
) -> tuple[Part, ...]:
    """The parts of several tensors of which one is there, each where its condition holds.

    A part is the same in two of them by birth, or by origin where the same calls sum it up.
    """
    ways: list[list[tuple[Cond, Part]]] = []
    by_birth: dict[object, int] = {}
    alike: dict[object, list[int]] = {}
    for cond, parts in alternatives:
        taken: set[int] = set()
        for part in parts:
            key = (part.origin, frozenset(part.reduced))
            same = (by_birth.get(part.birth), *alike.get(key, ()))
            way = next((one for one in same if one is not None and one not in taken), len(ways))
            if way == len(ways):
                ways.append([])
                alike.setdefault(key, []).append(way)
            by_birth.setdefault(part.birth, way)
            taken.add(way)
            ways[way].append((cond, part))
    return tuple(_one_of(logic, way, always=len(way) == len(alternatives)) for way in ways)


def _one_of(logic: Logic, pairs: Sequence[tuple[Cond, Part]], *, always: bool) -> Part:
    """The same part as alternatives hold it; `always` where each of them does."""
    *rest, (last, part) = _together(logic, pairs)
    if always and not rest and all(other is part for _, other in pairs):
        return part
    present, reduced = part.present, part.reduced
    if not always:
        present = logic.both(last, present)
        reduced = {place: logic.both(last, where) for place, where in reduced.items()}
    for cond, other in reversed(rest):
        present = logic.choose(cond, other.present, present)
        if other.reduced != reduced:
            reduced = _reduced(logic, cond, other.reduced, reduced)
    return Part(part.origin, present, reduced, _birth([one for _, one in pairs]))


def _together(logic: Logic, pairs: Sequence[tuple[Cond, Part]]) -> list[tuple[Cond, Part]]:
    """The pairs, those with parts that are present and reduced alike as one."""
    found: list[tuple[Cond, Part]] = []
    for cond, part in reversed(pairs):
        for at, (other, known) in enumerate(found):
            if known is part or (known.present, known.reduced) == (part.present, part.reduced):
                found[at] = (logic.either(cond, other), known)
                break
        else:
            found.append((cond, part))
    return found[::-1]


def _reduced(logic: Logic, test: Cond, then: Reduced, otherwise: Reduced) -> Reduced:
    return {
        place: logic.choose(test, then.get(place, FALSE), otherwise.get(place, FALSE))
        for place in {**otherwise, **then}
    }


def merge(logic: Logic, test: Cond, then: Value, otherwise: Value) -> Value:
    """The value that is `then` where `test` holds, else `otherwise`."""
    if test == TRUE or then is otherwise:
        return then
    if test == FALSE:
        return otherwise
    if isinstance(then, Truth) and isinstance(otherwise, Truth):
        return Truth(logic.choose(test, then.cond, otherwise.cond))
    return one_of(logic, ((test, then), (logic.negation(test), otherwise)))


def one_of(logic: Logic, pairs: Sequence[tuple[Cond, Value]]) -> Value:
    """The value of the one condition that holds; what it is where none does is of no account."""
    *rest, last = values = [value for _, value in pairs]
    if all(value is last for value in rest):
        return last
    kinds = {type(value) for value in values}
    if kinds == {Truth}:
        truth = last
        for cond, value in reversed(pairs[:-1]):
            truth = merge(logic, cond, value, truth)
        return truth
    if Tensor in kinds and kinds <= {Tensor, Text}:
        return Tensor(_exclusive(logic, [(cond, parts_of(logic, value)) for cond, value in pairs]))
    if kinds == {Items}:
        lists = [value.values for value in values if isinstance(value, Items)]
        if len({len(items) for items in lists}) == 1:
            conds = [cond for cond, _ in pairs]
            columns = zip(*lists, strict=True)
            return Items(tuple(one_of(logic, tuple(zip(conds, c, strict=True))) for c in columns))
    if all(value == last for value in rest):
        return last
    if all(map(_dull, values)):
        # nothing is owed in any: which of them it is need not be told apart
        return Text("either")
    return _choice(logic, pairs)


def _dull(value: Value) -> bool:
    """Whether nothing that is followed depends on the value."""
    if isinstance(value, Items):
        return all(map(_dull, value.values))
    if isinstance(value, Mapped):
        return all(map(_dull, value.values.values()))
    # over which of two groups something is summed is told apart
    return isinstance(value, Text) and not value.text.endswith("_group")


def _choice(logic: Logic, values: Sequence[tuple[Cond, Value]]) -> Value:
    pairs: list[tuple[Cond, Value]] = []
    for side, value in values:
        for cond, item in alternatives(value):
            where = logic.both(side, cond)
            if where == FALSE:
                continue
            for index, (other, known) in enumerate(pairs):
                if known == item:
                    pairs[index] = (logic.either(other, where), known)
                    break
                if isinstance(known, Tensor) and isinstance(item, Tensor):
                    joined = _exclusive(logic, [(other, known.parts), (where, item.parts)])
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
