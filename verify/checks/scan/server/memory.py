"""What calls did, by the answers that they heard."""

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from verify.checks.scan.server.copies import Left
from verify.checks.scan.server.stretches import Stretch, parts
from verify.checks.scan.server.words import UNSHARED, Key
from verify.interpreter.index import Function, Module

T = TypeVar("T")
# the number of a thing that every launch has, and the name of its field; or what is asked of words
Question: TypeAlias = tuple[int, Key]
WORDS = -2
# what is asked where something is left behind
APART: Question = (-1, "")
Parts: TypeAlias = tuple[Stretch | Sequence[ast.stmt], ...]


@dataclass(eq=False)
class Recalled(Generic[T]):
    """What came of a call, by the answers that it heard, in the order in which it asked.

    `missed` counts how often it was looked for in vain since it was found.
    """

    question: Question | None = None
    answers: "dict[Key, Recalled[T]]" = field(default_factory=dict)
    found: T | None = None
    missed: int = 0

    def find(self, ask: Callable[[Question], Key]) -> T | None:
        """What came of it when these answers were heard; None where they never were."""
        node: Recalled[T] | None = self
        while node is not None and node.question is not None:
            node = node.answers.get(ask(node.question))
        return node.found if node is not None else None

    def keep(self, heard: Mapping[Question, Key], found: T) -> None:
        """Remember what came of it."""
        if UNSHARED in heard.values():
            return
        node = self
        for question, answer in heard.items():
            node.question = question
            node = node.answers.setdefault(answer, Recalled())
        node.found = found


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a call does: what it leaves, or how it ends, its steps.

    `left` is its value and what it wrote to each thing that every launch has; `depth` is how many
    calls it has inside each other, `called` what it calls: neither may meet a limit.
    """

    left: Left
    ends: bool = False
    refused: tuple[str, int] | None = None
    places: tuple[Mapping[str, str], ...] = ()
    steps: int = 0
    depth: int = 0
    called: frozenset[Function] = frozenset()


@dataclass(eq=False)
class Heard:
    """What each field was when a call first came to it, and which of them it has written.

    `deepest` is the largest number of calls inside each other, `called` are their functions.
    """

    answers: dict[Question, Key] = field(default_factory=dict)
    wrote: set[tuple[int, str]] = field(default_factory=set)
    deepest: int = 0
    called: set[Function] = field(default_factory=set)


@dataclass(eq=False)
class Memory:
    """What is known of a source: what calls did, and the constants at the top of its files.

    `words` is by a launch's words, and by what was asked of them.
    """

    calls: dict[tuple[Key, ...], Recalled[Effect]] = field(default_factory=dict)
    words: dict[tuple[str, ...], dict[Key, Key]] = field(default_factory=dict)
    constants: dict[tuple[Module, str], Any] = field(default_factory=dict)
    _parts: dict[tuple[ast.stmt, int], Parts] = field(default_factory=dict)

    def parts(self, statements: Sequence[ast.stmt]) -> Parts:
        """A body's stretches, and what is between them."""
        # the list may be a passing one, its statements are not
        key = (statements[0], len(statements))
        known = self._parts.get(key)
        if known is None:
            known = self._parts[key] = tuple(parts(statements))
        return known
