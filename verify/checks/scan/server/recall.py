"""A call that asks the same and hears the same does the same: it is followed once.

What a call asks of the things that every launch has, the record of options first, decides what it
does. A tree of questions and answers finds a call that was followed before, under another launch.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from verify.checks.scan.server.follow import Follower, RefusedError
from verify.checks.scan.server.operators import DeadError
from verify.checks.scan.server.values import (
    Backend,
    Built,
    Code,
    Folder,
    Frame,
    Member,
    Thing,
    Unknown,
)
from verify.interpreter.index import Function, Index, Module

T = TypeVar("T")
# the number of a thing that every launch has, and the name of its field
Question: TypeAlias = tuple[int, str]
Key: TypeAlias = Hashable

ABSENT = object()
# the answer that is another one in every launch
UNSHARED = object()


@dataclass(eq=False)
class Recalled(Generic[T]):
    """What came of a call, by the answers that it heard, in the order in which it asked."""

    question: Question | None = None
    answers: "dict[Key, Recalled[T]]" = field(default_factory=dict)
    found: T | None = None

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


@dataclass(frozen=True)
class Number:
    """A thing that every launch has, by its number."""

    number: int


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a call does: its value or how it ends, what it writes to each thing, its steps."""

    value: Any = None
    ends: bool = False
    refused: tuple[str, int] | None = None
    fields: tuple[Mapping[str, Any], ...] = ()
    places: tuple[Mapping[str, str], ...] = ()
    steps: int = 0


@dataclass(eq=False)
class Heard:
    """What each field was when a call first came to it, and which of them it has written."""

    answers: dict[Question, Key] = field(default_factory=dict)
    wrote: set[Question] = field(default_factory=set)


@dataclass(eq=False)
class Memory:
    """What is known of a source: what calls did, and the constants at the top of its files."""

    calls: dict[tuple[Key, ...], Recalled[Effect]] = field(default_factory=dict)
    constants: dict[tuple[Module, str], Any] = field(default_factory=dict)


class Recaller(Follower):
    """A follower that knows what calls did under other launches.

    `shared` are the things that every launch has, always in one order; `memory` is what
    calls of the same source did, with the same natives.
    """

    def __init__(
        self,
        index: Index,
        natives: Mapping[str, Callable[..., Any]],
        *,
        shared: Sequence[Thing],
        memory: Memory | None = None,
        builds: tuple[str, ...] = ("",),
    ) -> None:
        super().__init__(index, natives, builds=builds)
        self.shared = tuple(shared)
        self.memory: Memory = Memory() if memory is None else memory
        self._numbers = {id(thing): number for number, thing in enumerate(shared)}
        self._heard: list[Heard] = []

    @contextmanager
    def hearing(self) -> Iterator[Heard]:
        """Note what is asked inside; a call that it is part of has asked it too."""
        heard = Heard()
        self._heard.append(heard)
        try:
            yield heard
        finally:
            self._heard.pop()
            if self._heard:
                outer = self._heard[-1]
                for question, answer in heard.answers.items():
                    outer.answers.setdefault(question, answer)
                outer.wrote |= heard.wrote

    def ask(self, question: Question) -> Key:
        """What is to be heard now; a call that runs has asked it then."""
        number, name = question
        thing = self.shared[number]
        if isinstance(thing, Backend):
            answer = self._key(thing.is_called(name))
        elif name in thing.fields:
            answer = self._key(thing.fields[name])
        else:
            answer = self._key(thing.base[name]) if name in thing.base else ABSENT
        if self._heard:
            self._heard[-1].answers.setdefault(question, answer)
        return answer

    def global_value(self, module: Module, name: str) -> Any:
        """What a name means at the top level of a file."""
        key = (module, name)
        if key in self.memory.constants:
            return self.memory.constants[key]
        value = super().global_value(module, name)
        if _plain(value) is not UNSHARED:
            self.memory.constants[key] = value
        return value

    def member(self, owner: Any, name: str) -> Any:
        """A field, method or property of a value."""
        if self._heard and isinstance(owner, Thing):
            self._note(owner, name)
        return super().member(owner, name)

    def write(self, thing: Thing, values: Mapping[str, Any]) -> None:
        """Give a thing's fields new values; what it had may come back on another way."""
        if self._heard:
            for name in values:
                self._note(thing, name, wrote=self._heard[-1].wrote)
        super().write(thing, values)

    def call(self, target: Any, positional: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Call a value, or do what the call did before."""
        key = None if keywords else self._question_of(target, positional)
        if key is None:
            return super().call(target, positional, keywords)
        recalled = self.memory.calls.setdefault(key, Recalled())
        effect = recalled.find(self.ask)
        return self._again(effect) if effect else self._first(recalled, target, positional)

    def _note(self, thing: Thing, name: str, *, wrote: set[Question] | None = None) -> None:
        number = self._numbers.get(id(thing))
        if number is None:
            return
        question = (number, name)
        if question not in self._heard[-1].answers:
            self.ask(question)
        if wrote is not None:
            wrote.add(question)

    def _question_of(self, target: Any, positional: Sequence[Any]) -> tuple[Key, ...] | None:
        """Names a call that asks of shared things only; None for every other one."""
        if not isinstance(target, Code) or target.scope is not None:
            return None
        given = positional if target.bound is None else (target.bound, *positional)
        if not any(id(one) in self._numbers for one in given):
            return None
        keys = tuple(map(self._key, given))
        if UNSHARED in keys:
            return None
        # how deep it may go, and whether what it raises is certain, follows from who calls it
        callers = tuple(map(_where, self.frames))
        return (_named(target.function), keys, self.certain, callers)

    def _first(self, recalled: Recalled[Effect], target: Code, positional: Sequence[Any]) -> Any:
        steps, before = self.steps, [thing.fields for thing in self.shared]
        value: Any = None
        ending: DeadError | RefusedError | None = None
        with self.hearing() as heard:
            try:
                value = super().call(target, positional, {})
            except (DeadError, RefusedError) as error:
                ending = error
        fields = tuple(map(_changed, before, self.shared))
        left = [self._key(one) for one in (value, *(v for part in fields for v in part.values()))]
        if UNSHARED not in left and not any(isinstance(key, Number) for key in left[1:]):
            effect = Effect(
                value=left[0] if isinstance(left[0], Number) else value,
                ends=isinstance(ending, DeadError),
                refused=(ending.file, ending.line) if isinstance(ending, RefusedError) else None,
                fields=fields,
                places=self._places(heard),
                steps=self.steps - steps,
            )
            recalled.keep(heard.answers, effect)
        if ending is not None:
            raise ending
        return value

    def _places(self, heard: Heard) -> tuple[Mapping[str, str], ...]:
        found: tuple[dict[str, str], ...] = tuple({} for _ in self.shared)
        for number, name in heard.wrote:
            found[number][name] = self.shared[number].places[name]
        return found

    def _again(self, effect: Effect) -> Any:
        """Do what a call did."""
        self.step(effect.steps)
        for number, thing in enumerate(self.shared):
            if effect.fields[number]:
                self.replace_fields(thing, {**thing.fields, **effect.fields[number]})
            thing.places.update(effect.places[number])
            if self._heard:
                self._heard[-1].wrote.update((number, name) for name in effect.places[number])
        if effect.refused is not None:
            raise RefusedError(*effect.refused)
        if effect.ends:
            raise DeadError
        value = effect.value
        return self.shared[value.number] if isinstance(value, Number) else value

    def _key(self, value: Any) -> Key:
        """A value as another launch may have it too; `UNSHARED` where none can."""
        if isinstance(value, Thing):
            number = self._numbers.get(id(value))
            return UNSHARED if number is None else Number(number)
        return _plain(value)


def _plain(value: Any) -> Key:
    match value:
        case None | str() | Unknown() | Member() | Built() | Folder():
            return value
        case bool() | int() | float():
            # True is 1, and a source tells them apart
            return (type(value), value)
        case tuple() | frozenset():
            parts = tuple(map(_plain, value))
            return UNSHARED if UNSHARED in parts else (type(value), parts)
        case Mapping():
            items = tuple((key, _plain(item)) for key, item in value.items())
            return UNSHARED if any(item is UNSHARED for _, item in items) else (dict, items)
        case Code(function=function, bound=None, scope=None):
            return _named(function)
    return UNSHARED


def _named(function: Function) -> Key:
    """A function that is the same one in every launch: a class makes its methods anew."""
    return (function.owner, function.name) if function.owner else function


def _where(frame: Frame) -> Key:
    return _named(frame.function) if frame.function else None


def _changed(before: Mapping[str, Any], thing: Thing) -> Mapping[str, Any]:
    """What a thing's fields are that were something else."""
    if thing.fields is before:
        return {}
    return {
        name: value
        for name, value in thing.fields.items()
        if name not in before or before[name] is not value
    }
