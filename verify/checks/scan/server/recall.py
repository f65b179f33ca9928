"""A call that asks the same and hears the same does the same: it is followed once.

What a call asks of the things that every launch has, the record of options first, decides what it
does. A tree of questions and answers finds a call that was followed before, under another launch.
"""

import ast
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from verify.checks.scan.server.copies import (
    Left,
    Number,
    Place,
    UncopiedError,
    changed,
    given,
    taken,
)
from verify.checks.scan.server.evaluate import MAX_DEPTH
from verify.checks.scan.server.follow import Follower, RefusedError
from verify.checks.scan.server.memory import APART, WORDS, Effect, Heard, Memory, Question, Recalled
from verify.checks.scan.server.operators import DeadError, compared
from verify.checks.scan.server.stretches import LEAST, Stretch
from verify.checks.scan.server.values import (
    Backend,
    Built,
    Code,
    Frame,
    Thing,
    Word,
)
from verify.checks.scan.server.words import (
    UNSHARED,
    Key,
    named,
    plain,
    without_words,
    words_in,
)
from verify.interpreter.index import Function, Index, Module

ABSENT = object()
# of one call, one after another that heard something new: the next is not remembered
MAX_MISSES = 16


class Recaller(Follower):
    """A follower that knows what calls did under other launches.

    `shared` are the things that every launch has, always in one order, `words` its words;
    `memory` is what calls of the same source did, with the same natives.
    """

    def __init__(
        self,
        index: Index,
        natives: Mapping[str, Callable[..., Any]],
        *,
        shared: Sequence[Thing],
        words: Sequence[Word] = (),
        memory: Memory | None = None,
        builds: tuple[str, ...] = ("",),
    ) -> None:
        super().__init__(index, natives, builds=builds)
        self.shared, self.words = tuple(shared), tuple(words)
        self.memory: Memory = Memory() if memory is None else memory
        self._numbers = {id(thing): number for number, thing in enumerate(shared)}
        self._numbered = tuple(map(Number, range(len(shared))))
        self._heard: list[Heard] = []
        # by function: how many calls of it are in progress
        self._active: dict[Function, int] = {}
        # by what is asked of these words, and by field with the value that it had: what is heard
        self._worded = self.memory.words.setdefault(self.words, {})
        self._keys: dict[Question, tuple[Any, Key]] = {}

    def listen(self) -> Heard:
        """Begin to note what is asked, until `end` is told."""
        heard = Heard()
        self._heard.append(heard)
        return heard

    def end(self, heard: Heard) -> None:
        """No longer note what is asked; a call that this was part of has asked it too."""
        self._heard.pop()
        if self._heard:
            outer = self._heard[-1]
            for question, answer in heard.answers.items():
                outer.answers.setdefault(question, answer)
            outer.wrote |= heard.wrote
            outer.called |= heard.called
            outer.deepest = max(outer.deepest, heard.deepest)

    def told_apart(self) -> None:
        """What runs now leaves something behind that nobody can do again."""
        if self._heard:
            self._heard[-1].answers[APART] = UNSHARED

    def enter(self, frame: Frame) -> None:
        """Begin a call."""
        super().enter(frame)
        function = frame.function
        if function is not None:
            self._active[function] = self._active.get(function, 0) + 1
        if self._heard:
            heard = self._heard[-1]
            heard.deepest = max(heard.deepest, len(self.frames))
            if function is not None:
                heard.called.add(function)

    def leave(self) -> None:
        """End the innermost call."""
        function = self.frame.function
        if function is not None:
            self._active[function] -= 1
            if not self._active[function]:
                del self._active[function]
        super().leave()

    def ask(self, question: Question) -> Key:
        """What is to be heard now; a call that runs has asked it then."""
        number, name = question
        if number == WORDS:
            answer = self._worded.get(name)
            if answer is None:
                answer = self._worded[name] = self._of_words(name)
        else:
            answer = self._of_thing(question)
        if self._heard:
            self._heard[-1].answers.setdefault(question, answer)
        return answer

    def _of_thing(self, question: Question) -> Key:
        number, name = question
        thing: Any = self.shared[number]
        if isinstance(thing, Backend):
            value = thing.is_called(str(name))
        elif name in thing.fields:
            value = thing.fields[name]
        elif name in thing.base:
            value = thing.base[name]
        else:
            return ABSENT
        known = self._keys.get(question)
        if known is None or known[0] is not value:
            known = self._keys[question] = value, self._key(value)
        return known[1]

    def _of_words(self, asked: Any) -> Key:
        """A word's letters, by its place; or how a comparison of which it is a part comes out."""
        if isinstance(asked, int):
            return str(self.words[asked])
        op, left, right = asked
        return compared(op(), self._put_in(left), self._put_in(right))

    def _put_in(self, value: Any) -> Any:
        """A value with this launch's words in their places."""
        match value:
            case Place(place=place):
                return self.words[place]
            case tuple():
                return tuple(map(self._put_in, value))
        return value

    def compared(self, op: ast.cmpop, left: Any, right: Any) -> bool | None:
        """A comparison; of a word, its outcome is what is heard, and not the word."""
        worded = words_in((left, right)) if self._heard else ()
        if worded is None:
            self.told_apart()
        elif worded:
            sides = tuple(map(without_words, (left, right)))
            if UNSHARED in sides:
                self.told_apart()
            else:
                self.ask((WORDS, (type(op), *sides)))
        return super().compared(op, left, right)

    def spelled(self, *values: Any) -> None:
        """The letters of these words, if they are any, decide what happens."""
        for value in values if self._heard else ():
            words = words_in(value)
            if words is None:
                self.told_apart()
            for word in words or ():
                self.ask((WORDS, word.place))

    def global_value(self, module: Module, name: str) -> Any:
        """What a name means at the top level of a file."""
        key = (module, name)
        if key in self.memory.constants:
            return self.memory.constants[key]
        heard = self.listen()
        try:
            value = super().global_value(module, name)
        finally:
            self.end(heard)
        if not heard.answers and plain(value) is not UNSHARED:
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

    def body(self, statements: Sequence[ast.stmt]) -> bool:
        """Run statements, or do what a stretch of them did before."""
        if len(statements) < LEAST:
            return super().body(statements)
        for part in self.memory.parts(statements):
            if isinstance(part, Stretch):
                self._along(part)
            elif super().body(part):
                return True
        return False

    def _along(self, stretch: Stretch) -> None:
        env = self.frame.env
        asked = {name: self._key(env[name]) for name in stretch.names if name in env}
        if UNSHARED in asked.values():
            super().body(stretch.statements)
            return
        key = (stretch, *asked.items(), self.certain, self.sure)
        env.update(self._remembered(key, lambda: self._bound(stretch), own=frozenset()))
        self.frame.line = stretch.statements[-1].lineno

    def _bound(self, stretch: Stretch) -> dict[str, Any]:
        """Run a stretch; the names that it gives a new value."""
        env = self.frame.env
        before = dict(env)
        super().body(stretch.statements)
        return {name: value for name, value in env.items() if before.get(name, ABSENT) is not value}

    def call(self, target: Any, positional: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Call a value, or do what the call did before."""
        key = self._question_of(target, positional, keywords)
        if key is None:
            return super().call(target, positional, keywords)
        own = frozenset((target.function,)) if isinstance(target, Code) else frozenset()
        run = super().call
        return self._remembered(key, lambda: run(target, positional, keywords), own=own)

    def asked_about(self, function: Function, fields: Mapping[str, Any]) -> Any:
        """Call a function with an object that has these fields; equal ones are asked about once."""
        keys = tuple(map(self._key, fields.values()))
        handed = Thing(None, dict(fields))
        if UNSHARED in keys:
            return self.call(Code(function), (handed,), {})
        key = (named(function), tuple(fields), keys, self.certain, self.sure)
        own = frozenset((function,))
        return self._remembered(key, lambda: self.call(Code(function), (handed,), {}), own=own)

    def _remembered(
        self, key: tuple[Key, ...], run: Callable[[], Any], *, own: frozenset[Function]
    ) -> Any:
        """What running this leads to, or led to before; `own` is the function that it is a call of.

        How often that one is active already, the key says.
        """
        recalled = self.memory.calls.get(key)
        if recalled is None:
            recalled = self.memory.calls[key] = Recalled()
        if recalled.missed > MAX_MISSES:
            return run()
        effect = recalled.find(self.ask)
        if effect is not None and self._fits(effect.depth, effect.called, own):
            recalled.missed = 0
            return self._again(effect)
        recalled.missed += 1
        return self._first(recalled, run, own)

    def _fits(self, depth: int, called: Set[Function], own: frozenset[Function]) -> bool:
        """Whether nothing that is called comes to a limit here."""
        if len(self.frames) + depth > MAX_DEPTH:
            return False
        return called.isdisjoint(self._active) or self._active.keys() & called <= own

    def _note(self, thing: Thing, name: str, *, wrote: set[tuple[int, str]] | None = None) -> None:
        number = self._numbers.get(id(thing))
        if number is None:
            return
        question = (number, name)
        if question not in self._heard[-1].answers:
            self.ask(question)
        if wrote is not None:
            wrote.add(question)

    def _question_of(
        self, target: Any, positional: Sequence[Any], keywords: Mapping[str, Any]
    ) -> tuple[Key, ...] | None:
        """Names a call that asks of shared things only; None for every other one."""
        handed = positional
        match target:
            case Code(function=function, bound=bound, scope=None):
                what: Key = (named(function), self._active.get(function, 0))
                handed = positional if bound is None else (bound, *positional)
            case Built(cls=cls) if cls.module.path.startswith(self.builds):
                what = cls
            case _:
                return None
        keys = tuple(map(self._key, (*handed, *keywords.values())))
        if UNSHARED in keys:
            return None
        # whether what it does is certain follows from who calls it
        return (what, keys, tuple(keywords), self.certain, self.sure)

    def _first(
        self, recalled: Recalled[Effect], run: Callable[[], Any], own: frozenset[Function]
    ) -> Any:
        steps, before = self.steps, [thing.fields for thing in self.shared]
        value: Any = None
        ending: DeadError | RefusedError | None = None
        heard = self.listen()
        heard.called |= own
        try:
            value = run()
        except (DeadError, RefusedError) as error:
            ending = error
        finally:
            self.end(heard)
        depth = max(0, heard.deepest - len(self.frames))
        left = self._left((value, *map(changed, before, self.shared)))
        if left is not None and self._fits(depth, heard.called, own):
            effect = Effect(
                left=left,
                ends=isinstance(ending, DeadError),
                refused=(ending.file, ending.line) if isinstance(ending, RefusedError) else None,
                places=self._places(heard),
                steps=self.steps - steps,
                depth=depth,
                called=frozenset(heard.called),
            )
            recalled.keep(heard.answers, effect)
        if ending is not None:
            try:
                raise ending
            finally:
                # its traceback holds this frame: together they would wait for the cycle collector
                ending = None
        return value

    def _left(self, values: tuple[Any, ...]) -> Left | None:
        """Values as another launch can have them; None where it cannot."""
        try:
            return taken(values, self.shared)
        except UncopiedError:
            return None

    def _places(self, heard: Heard) -> tuple[Mapping[str, str], ...]:
        found: tuple[dict[str, str], ...] = tuple({} for _ in self.shared)
        for number, name in heard.wrote:
            found[number][name] = self.shared[number].places[name]
        return found

    def _again(self, effect: Effect) -> Any:
        """Do what a call did."""
        self.step(effect.steps)
        value, *fields = given(effect.left, self.shared, self.words)
        for number, thing in enumerate(self.shared):
            if fields[number]:
                self.replace_fields(thing, {**thing.fields, **fields[number]})
            thing.places.update(effect.places[number])
            if self._heard:
                self._heard[-1].wrote.update((number, name) for name in effect.places[number])
        if self._heard:
            heard = self._heard[-1]
            heard.called |= effect.called
            heard.deepest = max(heard.deepest, len(self.frames) + effect.depth)
        if effect.refused is not None:
            raise RefusedError(*effect.refused)
        if effect.ends:
            raise DeadError
        return value

    def _key(self, value: Any) -> Key:
        """A value as another launch may have it too; `UNSHARED` where none can."""
        if isinstance(value, Thing):
            number = self._numbers.get(id(value))
            return UNSHARED if number is None else self._numbered[number]
        return plain(value)
