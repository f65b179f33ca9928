"""Does the experts' layer come to be behind a backend, and does its forward take what it is handed?

The backend's dispatcher is built with it: one that has no answer for how the server is started
raises there.
"""

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from verify.checks.scan.server.arguments import Options, Refusal
from verify.checks.scan.server.evaluate import TooMuchError
from verify.checks.scan.server.follow import Follower, RefusedError
from verify.checks.scan.server.values import UNKNOWN, Backend, Code, Member, Thing
from verify.engines.sources import reading
from verify.interpreter.index import Class, Function, Index

ENGINE = reading()
KNOWN = ENGINE.launches
BEHIND = KNOWN.behind
# a function that returns an option as a member of an enumeration
_RETURNS_MODE = re.compile(r"\ndef (get_(\w+))\(\) -> (\w+):")


class Mode(NamedTuple):
    """An option of which the layer is told a member of an enumeration."""

    option: str
    members: Mapping[Any, Member]


@dataclass(eq=False)
class Experts:
    """The experts' layer of one source."""

    index: Index
    _known: dict[tuple[object, ...], Refusal | None] = field(default_factory=dict)
    # the options that some layer was told
    _asked: set[str] = field(default_factory=set)

    def ends(self, options: Options) -> Refusal | None:
        """Where the layer's constructor, or its dispatcher's, ends the launch."""
        return self._ending(options, (), None)

    def others(self, options: Options) -> tuple[Options, ...]:
        """Single options with which the layer comes to be, where with these it does not."""
        if self.ends(options) is None:
            return ()
        told = [mode for mode in self._modes.values() if mode.option in self._asked]
        other = ({mode.option: value} for mode in told for value in mode.members)
        return tuple(one for one in other if self.ends({**options, **one}) is None)

    def unquantised(
        self, options: Options, runner: str | None, handed: Sequence[Class]
    ) -> Refusal | None:
        """Where the forward of experts that are not quantised ends, as that of others does not.

        `runner` is the one that they get, `handed` what their dispatcher hands on: whichever of
        them it is, the forward ends.
        """
        return self._ending(options, tuple(handed), runner) if handed else None

    def _ending(
        self, options: Options, handed: tuple[Class, ...], runner: str | None
    ) -> Refusal | None:
        key = self._key(options, handed, runner)
        if key not in self._known:
            ending = self._follow(options, handed, runner)
            # what was asked on the way is part of it now
            key = self._key(options, handed, runner)
            self._known[key] = ending
        return self._known[key]

    def _key(
        self, options: Options, handed: tuple[Class, ...], runner: str | None
    ) -> tuple[object, ...]:
        """What decides: backends, and the options that some layer was told."""
        names = (*KNOWN.settings.values(), *sorted(self._asked))
        return (*((name, options.get(name)) for name in names), handed, runner)

    def _follow(
        self, options: Options, handed: tuple[Class, ...], runner: str | None
    ) -> Refusal | None:
        follower = _Follower(self.index, self._natives(options, runner), builds=BEHIND.builds)
        quantisation = None if handed else UNKNOWN
        try:
            layer = follower.call(self._layer, (quantisation,), {})
            made = follower.call(layer, (), {BEHIND.quantisation: quantisation})
        except RefusedError as error:
            # that of experts without quantisation is asked about its forward
            return None if handed else Refusal(file=error.file, line=error.line)
        except (TooMuchError, RecursionError):
            return None
        run = follower.member(made, BEHIND.runs)
        refusals = [_refusal(follower, run, one) for one in handed]
        return refusals[0] if refusals and None not in refusals else None

    def _natives(self, options: Options, runner: str | None) -> Mapping[str, Callable[..., Any]]:
        def backend(name: str) -> Callable[..., Any]:
            def asked(_: Any, receiver: Any, *__: Any) -> Any:
                # what a quantisation method answers is what the option comes to
                settled = runner if name == BEHIND.option and receiver is not None else None
                return Backend(settled or options.get(name))

            return asked

        return {
            **{function: backend(name) for function, name in KNOWN.settings.items()},
            **{function: self._tells(mode, options) for function, mode in self._modes.items()},
            **{function: _always(answer) for function, answer in KNOWN.device.items()},
            "super": lambda follower, *_: follower.parent(),
            # of what there is a number of, there is one at least
            "range": _always((UNKNOWN,)),
        }

    def _tells(self, mode: Mode, options: Options) -> Callable[..., Any]:
        def tell(*_: Any) -> Any:
            self._asked.add(mode.option)
            return mode.members.get(options.get(mode.option), UNKNOWN)

        return tell

    @cached_property
    def _layer(self) -> Any:
        module = self.index.module(BEHIND.layer.file)
        found = module.lookup(BEHIND.layer.name) if module else None
        return Code(found) if isinstance(found, Function) else UNKNOWN

    @cached_property
    def _modes(self) -> Mapping[str, Mode]:
        """By the function that tells the layer."""
        found: dict[str, Mode] = {}
        for path in self.index.tree.under(BEHIND.builds[0]):
            module = self.index.module(path)
            for function, option, name in _RETURNS_MODE.findall(module.text) if module else ():
                cls = module.lookup(name) if module else None
                if isinstance(cls, Class) and function not in KNOWN.settings:
                    found[function] = Mode(option, _members(cls))
        return found


class _Parent(NamedTuple):
    """A thing as the classes that come after `owner` among its own have it."""

    bound: Thing
    owner: Class


class _Follower(Follower):
    def parent(self) -> Any:
        """What `super()` is here."""
        owner, function = self.frame.owner, self.frame.function
        first = function.node.args.args[:1] if function else ()
        bound = self.frame.env.get(first[0].arg) if first else None
        return _Parent(bound, owner) if isinstance(bound, Thing) and owner else UNKNOWN

    def member(self, owner: Any, name: str) -> Any:
        """A field, method or property of a value, or of what its class inherits from."""
        if isinstance(owner, _Parent):
            cls = owner.bound.cls
            method = cls.method(name, after=owner.owner) if cls else None
            return Code(method, owner.bound) if method else UNKNOWN
        return super().member(owner, name)


def _refusal(follower: Follower, run: Any, handed: Class) -> Refusal | None:
    """Where the forward ends with what it is handed."""
    try:
        follower.call(run, (Thing(handed),), {})
    except RefusedError as error:
        return Refusal(file=error.file, line=error.line)
    except (TooMuchError, RecursionError):
        return None
    return None


def _members(cls: Class) -> Mapping[Any, Member]:
    """The members of an enumeration by their values."""
    return {
        written.value: Member(cls.name, name, cls)
        for name, written in cls.assigned.items()
        if isinstance(written, ast.Constant)
    }


def _always(value: Any) -> Callable[..., Any]:
    return lambda *_: value
