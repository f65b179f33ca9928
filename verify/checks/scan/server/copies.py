"""What a call leaves, as another launch can have it: objects that it made are made anew.

Objects of the launch itself stand there by number, so that another launch puts in its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from verify.checks.scan.server.values import (
    Backend,
    Built,
    Code,
    Folder,
    Member,
    Thing,
    Unknown,
    Word,
)


class UncopiedError(Exception):
    """A value that belongs to one launch only."""


@dataclass(frozen=True)
class Number:
    """A thing that every launch has, by its number."""

    number: int


@dataclass(frozen=True)
class Place:
    """A word that every launch has, by its place among them."""

    place: int


@dataclass(frozen=True, kw_only=True)
class Left:
    """Values that no launch owns; `fresh` where there are things or words among them."""

    values: tuple[Any, ...]
    fresh: bool


def taken(values: tuple[Any, ...], shared: Sequence[Thing]) -> Left:
    """Values out of a launch that has these things. Raises `UncopiedError`."""
    copies = _Copies(shared, {id(thing): Number(n) for n, thing in enumerate(shared)})
    copied = tuple(map(copies.of, values))
    return Left(values=copied, fresh=copies.found)


def given(left: Left, shared: Sequence[Thing], words: Sequence[str]) -> tuple[Any, ...]:
    """The values for a launch that has these things and these words."""
    if not left.fresh:
        return left.values
    copies = _Copies(shared, words=words)
    return tuple(map(copies.of, left.values))


@dataclass(eq=False)
class _Copies:
    shared: Sequence[Thing]
    known: dict[int, Any] = field(default_factory=dict)
    words: Sequence[str] = ()
    found: bool = False

    def of(self, value: Any) -> Any:
        match value:
            case Word(place=place):
                self.found = True
                return Place(place)
            case Place(place=place):
                return self.words[place]
            case (
                None | str() | bool() | int() | float() | Unknown() | Member() | Built() | Folder()
            ):
                return value
            case Number(number=number):
                return self.shared[number]
            case Thing():
                self.found = True
                return self.known.get(id(value)) or self._thing(value)
            case Code(function=function, bound=bound, scope=None):
                return value if bound is None else Code(function, self.of(bound))
            case tuple():
                return tuple(map(self.of, value))
            case frozenset():
                return frozenset(map(self.of, value))
            case dict():
                return {key: self.of(item) for key, item in value.items()}
        raise UncopiedError

    def _thing(self, thing: Thing) -> Thing:
        if isinstance(thing, Backend):
            raise UncopiedError
        made = Thing(thing.cls, {}, thing.whole, thing.base, dict(thing.places))
        self.known[id(thing)] = made
        made.fields = {name: self.of(value) for name, value in thing.fields.items()}
        return made


def changed(before: Mapping[str, Any], thing: Thing) -> Mapping[str, Any]:
    """What a thing's fields are that were something else."""
    if thing.fields is before:
        return {}
    return {
        name: value
        for name, value in thing.fields.items()
        if name not in before or before[name] is not value
    }
