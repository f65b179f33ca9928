"""What a server settles for a model before any layer is built, and which option settles it else.

A condition asks for it by a function without parameters that returns a field; another function of
the same file fills that field from the model's class and the options.
"""

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from verify.checks.scan.server.arguments import Options
from verify.checks.scan.server.construct import told
from verify.checks.scan.server.evaluate import TooMuchError
from verify.checks.scan.server.follow import Follower, RefusedError
from verify.checks.scan.server.operators import compared
from verify.checks.scan.server.settings import parsed, returned
from verify.checks.scan.server.values import UNKNOWN, Built, Code, Thing, Unknown
from verify.engines.sources import reading
from verify.interpreter.index import Class, Function, Index, Module

QUANTISATION = reading().launches.behind.quantisation


class Settled(NamedTuple):
    """A field that a function settles for a model."""

    by: Function
    name: str


@dataclass(eq=False)
class Stated:
    """What one source's server settles for a model."""

    index: Index
    defaults: Options
    _fields: dict[Function, Settled | None] = field(default_factory=dict)

    def needs(
        self,
        model: Class | None,
        modules: Sequence[Module],
        conditions: Iterable[str],
        set_: Options,
    ) -> Options:
        """The options without which conditions do not hold for a model, where one sees to that.

        `set_` are the options as the server sets them. What is known to hold needs none, nor what
        no option sees to.
        """
        found: dict[str, Any] = {}
        asked: Any = Built(model) if model else UNKNOWN
        for text in conditions:
            for node in parsed(text):
                found.update(self._needs(asked, modules, node, {**set_, **found}))
        return found

    def _needs(
        self, model: Any, modules: Sequence[Module], node: ast.expr, options: Options
    ) -> Options:
        match node:
            case ast.Compare(
                left=ast.Call(func=ast.Name(id=name), args=[], keywords=[]),
                ops=[op],
                comparators=[ast.Constant(value=value)],
            ):
                settled = self._settled(modules, name, options)
            case _:
                return {}
        if settled is None:
            return {}
        asked: dict[str, None] = {}
        if compared(op, self._value(model, settled, options, asked), value):
            return {}
        for option in tuple(asked):
            if self.defaults.get(option) is False and options.get(option) is not True:
                other = {**options, option: True}
                if compared(op, self._value(model, settled, other, asked), value):
                    return {option: True}
        return {}

    def _settled(self, modules: Sequence[Module], name: str, options: Options) -> Settled | None:
        """What a function of this name returns, where another one settles it."""
        function = next(
            (one for one in (module.resolve(name) for module in modules) if one is not None), None
        )
        if not isinstance(function, Function):
            return None
        if function not in self._fields:
            written = returned(function)
            known = isinstance(written, ast.Attribute) and written.attr not in options
            self._fields[function] = (
                _by(function, written.attr)
                if known and isinstance(written, ast.Attribute)
                else None
            )
        return self._fields[function]

    def _value(self, model: Any, settled: Settled, options: Options, asked: dict[str, None]) -> Any:
        follower = _Follower(self.index, options, asked)
        # the model's class comes first, then what its checkpoint says: nothing, but that it is
        # not quantised
        first, *others = (argument.arg for argument in settled.by.node.args.args)
        checkpoint = {name: None if name == QUANTISATION else Thing() for name in others}
        try:
            made = follower.call(Code(settled.by), (), {first: model, **checkpoint})
        except (RefusedError, TooMuchError, RecursionError):
            return UNKNOWN
        return follower.member(made, settled.name)


class _Follower(Follower):
    """Notes the options that are asked for: `asks().group.option`."""

    def __init__(self, index: Index, options: Options, asked: dict[str, None]) -> None:
        super().__init__(index, told(options))
        self._context = Unknown()
        self._options, self._asked_for = options, asked

    def call(self, target: Any, positional: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Call a value; what is called without arguments may have the options."""
        value = super().call(target, positional, keywords)
        bare = isinstance(target, Code) and target.bound is None and not positional and not keywords
        return self._context if bare and value is UNKNOWN else value

    def member(self, owner: Any, name: str) -> Any:
        """A field, method or property of a value; of what has the options, one of them."""
        if owner is not self._context:
            return super().member(owner, name)
        if name not in self._options:
            return owner
        self._asked_for[name] = None
        return self._options[name]


def _by(asks: Function, name: str) -> Settled | None:
    """The function of the same file that fills the field."""
    fills = re.compile(rf"\b[A-Z]\w*\([^()]*\b{name}=")
    for other, piece in asks.module.pieces.items():
        if fills.search(piece.text):
            found = asks.module.lookup(other)
            if isinstance(found, Function) and found.node.args.args:
                return Settled(found, name)
    return None
