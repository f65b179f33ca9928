"""Options that a case needs: what its conditions ask the server for, against the defaults.

A condition asks for one by a field of what a call without arguments returns, or by a function
without parameters that returns such a question.
"""

import ast
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from verify.checks.scan.server.arguments import Options
from verify.interpreter.index import Class, Function, Module

MAX_HOPS = 4  # functions that return what another one says


def settings(
    layer: Class, files: Iterable[str], conditions: Iterable[str], defaults: Options
) -> Options:
    """What must be set for these conditions to hold; nothing for what holds by itself.

    Names mean what they do in the layer's file, or in the first of `files` that has them.
    """
    index = layer.module.index
    modules = [layer.module, *filter(None, map(index.module, files))]
    return dict(
        pair
        for text in conditions
        for asked in parsed(text)
        for pair in _wanted(asked, modules, defaults, MAX_HOPS)
    )


def denied(
    layer: Class,
    files: Sequence[str],
    conditions: Iterable[str],
    defaults: Options,
    settled: Options,
) -> str | None:
    """An option that the server settles as a condition says that it is not; None without one."""
    for text in conditions:
        opposite = settings(layer, files, (f"not ({text})",), defaults)
        if opposite and all(settled.get(name) == value for name, value in opposite.items()):
            return next(iter(opposite))
    return None


def set_besides(options: Options, asked: Options) -> Options:
    """A launch with what is asked for besides: what it has itself stays."""
    return {**options, **asked, **options}


def parsed(text: str) -> Iterator[ast.expr]:
    """A condition as an expression, where it is one."""
    # not all conditions are written as source
    with suppress(SyntaxError):
        yield ast.parse(text, mode="eval").body


def _wanted(
    node: ast.expr, modules: Sequence[Module], defaults: Options, hops: int, *, holds: bool = True
) -> Iterator[tuple[str, Any]]:
    match node:
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield from _wanted(operand, modules, defaults, hops, holds=not holds)
        case ast.Call(func=ast.Name(id=name), args=[], keywords=[]) if hops:
            found = (module.resolve(name) for module in modules)
            said = next((one for one in found if one is not None), None)
            value = returned(said) if isinstance(said, Function) else None
            if said is not None and value is not None:
                yield from _wanted(value, [said.module], defaults, hops - 1, holds=holds)
        case ast.Compare(left=left, ops=[op], comparators=[ast.Constant(value=value)]):
            option = _option(left, defaults)
            if option is not None:
                yield from _compared(option, op, value, defaults[option], holds=holds)
        case ast.Attribute():
            option = _option(node, defaults)
            if option is not None and isinstance(defaults[option], bool):
                yield from _compared(option, ast.Eq(), holds, defaults[option], holds=True)


def _compared(
    option: str, op: ast.cmpop, value: Any, default: Any, *, holds: bool
) -> Iterator[tuple[str, Any]]:
    match op:
        case ast.Eq() | ast.Is() if holds and default != value and value is not None:
            yield option, value
        case ast.NotEq() | ast.IsNot() if not holds and default != value and value is not None:
            yield option, value
        case ast.Gt() if holds and isinstance(value, int) and not _above(default, value):
            yield option, value + 1


def _above(default: Any, value: int) -> bool:
    return isinstance(default, int) and default > value


def _option(node: ast.expr, defaults: Options) -> str | None:
    """The option behind `asks().option` and `asks().group.option`."""
    if not isinstance(node, ast.Attribute) or node.attr not in defaults:
        return None
    root = node.value
    while isinstance(root, ast.Attribute):
        root = root.value
    asks = isinstance(root, ast.Call) and not root.args and not root.keywords
    return node.attr if asks else None


def returned(function: Function) -> ast.expr | None:
    """What a function without parameters returns, where that is all it does."""
    node = function.node
    if isinstance(node, ast.Lambda) or ast.unparse(node.args):
        return None
    body = [one for one in node.body if not isinstance(one, ast.Expr)]
    match body:
        case [ast.Return(value=value)]:
            return value
    return None
