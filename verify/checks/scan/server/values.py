"""Values of the follower: Python's own constants, unknown ones, things with fields, code."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from verify.interpreter.index import Class, Function, Module


class Unknown:
    """A value of which nothing is known."""

    def __repr__(self) -> str:
        return "?"

    def __bool__(self) -> bool:
        raise TypeError("ask truth_of")


UNKNOWN = Unknown()
# unknown because it is another one for each layer of a model: every answer is given somewhere
BY_LAYER = Unknown()
# one of several texts, none of them empty
SOME_TEXT = Unknown()
MAX_PARTS = 2_000  # characters of a text, items of a collection and of those in it
MOST = 1 << 62
# asked so often that to put a union together each time would cost more than the question
_COLLECTIONS = (tuple, frozenset)


@dataclass(eq=False)
class Thing:
    """An object by its fields; one that was never set is unknown, or absent where all are known.

    `cls` is its class, if that is known; `places` says where a field was set last. `base` is
    what it had from the beginning, `fields` what was set since. `fields` is replaced, never
    changed: who kept it has what was.
    """

    cls: Class | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = False
    base: Mapping[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Code:
    """A function of the source, perhaps bound to an object, or written inside another one."""

    function: Function
    bound: Any = None
    scope: Mapping[str, Any] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Built:
    """A class of the source, to be called or asked for a member."""

    cls: Class


@dataclass(frozen=True)
class Member:
    """A member of a class, by name: what an enumeration has. `of` is that class."""

    cls: str
    name: str
    of: Class | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, eq=False)
class Native:
    """What the follower itself does in place of a call."""

    run: Callable[..., Any]


class Backend(Thing):
    """A backend by its name."""

    def __init__(self, name: Any) -> None:
        super().__init__()
        self.name = name

    def is_called(self, question: str) -> Any:
        """What a method called `is_x` answers: whether the backend is the one called x."""
        if not question.startswith("is_") or not isinstance(self.name, str):
            return UNKNOWN
        return self.name == question.removeprefix("is_")


@dataclass(frozen=True)
class Folder:
    """A file of the source as a name: `import a.b as name`."""

    module: Module


class Word(str):
    """One of the words that name a model: another one in each launch, with a place of its own.

    It is a text like any other; who remembers what was done with one asks `Recaller` about it.
    """

    __slots__ = ("place",)
    place: int

    def __new__(cls, text: str, place: int) -> "Word":
        """A word at a place among the words of its launch."""
        made = super().__new__(cls, text)
        made.place = place
        return made


_OBJECTS = (Thing, Code, Built, Member, Native, Folder)
_CONSTANTS = (str, bool, int, float, bytes, Member)

Left = Literal["return", "break", "continue"]


@dataclass(eq=False)
class Frame:
    """One call: the names in it, what it may have returned, how control left a block last."""

    module: Module
    owner: Class | None
    env: dict[str, Any]
    returns: list[Any] = field(default_factory=list)
    line: int = 0
    left: Left = "return"
    function: Function | None = None


def truth_of(value: Any) -> bool | None:
    """Whether a value is true; None where nobody knows."""
    if isinstance(value, Unknown):
        return True if value is SOME_TEXT else None
    return True if isinstance(value, _OBJECTS) else bool(value)


def unknown_of(*values: Any) -> Unknown:
    """What is unknown because of these: `BY_LAYER` where one of them is."""
    return BY_LAYER if any(value is BY_LAYER for value in values) else UNKNOWN


def joined(one: Any, other: Any) -> Any:
    """The value that is one of two."""
    if one is other:
        return one
    if all(isinstance(value, str | Unknown) and truth_of(value) for value in (one, other)):
        return one if one == other else SOME_TEXT
    if type(one) is not type(other) or isinstance(one, Thing | Native):
        return UNKNOWN
    collection = isinstance(one, tuple | frozenset | dict)
    if collection and not (known(one) and known(other)):
        return UNKNOWN
    return one if one == other else UNKNOWN


def known(value: Any) -> bool:
    """Whether a constant, or a collection of constants that is not too large, is known."""
    if value is None or isinstance(value, _CONSTANTS):
        return True
    todo, seen = [value], 0
    while todo:
        one = todo.pop()
        seen += 1
        if seen > MAX_PARTS:
            return False
        if isinstance(one, _COLLECTIONS):
            todo += list(one)[:MAX_PARTS]
        elif isinstance(one, dict):
            todo += list(one.values())[:MAX_PARTS]
        elif not (one is None or isinstance(one, _CONSTANTS)):
            return False
    return True


def bounded(value: Any) -> Any:
    """The value, unknown where a hostile source has made it grow."""
    if isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < MOST else UNKNOWN
    if isinstance(value, str | tuple | frozenset) and len(value) > MAX_PARTS:
        return UNKNOWN
    return value
