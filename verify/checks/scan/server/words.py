"""The words that name a launch's model, inside values: where they are, and what is left without."""

from collections.abc import Hashable, Sequence
from typing import Any, TypeAlias

from verify.checks.scan.server.copies import Place
from verify.checks.scan.server.values import (
    MAX_PARTS,
    Built,
    Code,
    Folder,
    Member,
    Unknown,
    Word,
)
from verify.interpreter.index import Function

Key: TypeAlias = Hashable
# the answer that is another one in every launch
UNSHARED = object()


def words_in(value: Any) -> Sequence[Word] | None:
    """The words of the launch in a value; None of one that is too large."""
    todo, seen = [value], 0
    found: list[Word] = []
    while todo:
        one = todo.pop()
        seen += 1
        if seen > MAX_PARTS:
            return None
        if isinstance(one, tuple):
            todo += one[:MAX_PARTS]
        elif isinstance(one, Word):
            found.append(one)
    return found


def without_words(value: Any) -> Key:
    """A side of a comparison as a question has it; `UNSHARED` where it cannot be one."""
    match value:
        case Word(place=place):
            return Place(place)
        case None | str() | bool() | int() | float() | Unknown() | Member():
            return value
        case frozenset() if all(isinstance(item, str) for item in value):
            return value
        case tuple():
            parts = tuple(map(without_words, value))
            return UNSHARED if UNSHARED in parts else parts
    return UNSHARED


def plain(value: Any) -> Key:
    """A value that no launch owns, as a question has it; `UNSHARED` where one owns it."""
    match value:
        case Word(place=place):
            return Place(place)
        case None | str() | Unknown() | Member() | Built() | Folder():
            return value
        case bool() | int() | float():
            # True is 1, and a source tells them apart
            return (type(value), value)
        case tuple() | frozenset():
            parts = tuple(map(plain, value))
            return UNSHARED if UNSHARED in parts else (type(value), parts)
        case dict():
            items = tuple(map(plain, value.values()))
            return UNSHARED if UNSHARED in items else (dict, tuple(value), items)
        case Code(function=function, bound=None, scope=None):
            return named(function)
    return UNSHARED


def named(function: Function) -> Key:
    """A function that is the same one in every launch: a class makes its methods anew."""
    return (function.owner, function.name) if function.owner else function
