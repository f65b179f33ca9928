"""Options that a case needs: what its conditions ask the server for, against the defaults.

A condition asks for one by a field of what a call without arguments returns, or by a function
without parameters that returns such a question.
"""

import ast
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice, product
from typing import Any

from verify.checks.scan.server.arguments import Options
from verify.checks.scan.server.operators import compared
from verify.checks.scan.server.values import UNKNOWN, truth_of
from verify.interpreter.index import Class, Function, Module

MAX_HOPS = 4  # functions that return what another one says
MAX_WAYS = 8  # in which conditions may come to hold


def ways(
    layer: Class, files: Iterable[str], conditions: Iterable[str], defaults: Options
) -> list[Options]:
    """What may be set for these conditions to hold, what sets least first.

    Nothing is set for what holds by itself, or of which nobody knows what to set. Names mean what
    they do in the layer's file, or in the first of `files` that has them.
    """
    modules = modules_of(layer, files)
    each = [
        _ways(asked, modules, defaults, MAX_HOPS) for text in conditions for asked in parsed(text)
    ]
    return sorted(islice(_together(each), MAX_WAYS), key=len)


def sayable(layer: Class, files: Sequence[str], condition: str, defaults: Options) -> bool:
    """Whether a condition by itself can be met by each set of options that it may ask for."""
    asked = ways(layer, files, (condition,), defaults)
    met = [
        way.keys()
        for way in asked
        if not any(unmet(layer, files, (condition,), {**defaults, **way}))
    ]
    return all(way.keys() in met for way in asked)


def unmet(
    layer: Class, files: Iterable[str], conditions: Iterable[str], settled: Options
) -> Iterator[tuple[str, frozenset[str]]]:
    """The conditions that do not hold with these options, and the options that each asks for."""
    modules = modules_of(layer, files)
    for text in conditions:
        for asked in parsed(text):
            names: set[str] = set()
            if _truth(asked, modules, settled, MAX_HOPS, names) is False:
                yield text, frozenset(names)


def modules_of(layer: Class, files: Iterable[str]) -> list[Module]:
    """Where the names of conditions mean something: the layer's file, then the others."""
    return [layer.module, *filter(None, map(layer.module.index.module, files))]


def set_besides(options: Options, asked: Options) -> Options:
    """A launch with what is asked for besides: what it has itself stays."""
    return {**options, **asked, **options}


def parsed(text: str) -> Iterator[ast.expr]:
    """A condition as an expression, where it is one."""
    # not all conditions are written as source
    with suppress(SyntaxError):
        yield _NoChoice().visit(ast.parse(text, mode="eval").body)


class _NoChoice(ast.NodeTransformer):
    """Writes a choice by `and` and `or`."""

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        self.generic_visit(node)
        denied = ast.UnaryOp(ast.Not(), node.test)
        either = [(node.test, node.body), (denied, node.orelse)]
        return ast.BoolOp(ast.Or(), [ast.BoolOp(ast.And(), [*both]) for both in either])


def _ways(
    node: ast.expr, modules: Sequence[Module], defaults: Options, hops: int, *, holds: bool = True
) -> list[Options]:
    """What may be set for a condition to hold, or not to."""
    match node:
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _ways(operand, modules, defaults, hops, holds=not holds)
        case ast.BoolOp(op=op, values=values):
            each = [_ways(one, modules, defaults, hops, holds=holds) for one in values]
            if isinstance(op, ast.And) == holds:
                return list(islice(_together(each), MAX_WAYS))
            return [one for several in each for one in several][:MAX_WAYS]
        case ast.Call() if hops:
            said = _said(node, modules)
            if said is not None:
                return _ways(said[0], said[1], defaults, hops - 1, holds=holds)
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            option = _option(left, defaults)
            if option is not None:
                return [*_compared(option, op, right, defaults[option], holds=holds)]
        case ast.Attribute():
            option = _option(node, defaults)
            if option is not None and isinstance(defaults[option], bool):
                return [{option: holds} if defaults[option] is not holds else {}]
    return [{}]


def _together(each: Sequence[Sequence[Options]]) -> Iterator[Options]:
    """One way of each; where two set one option, with either's value."""
    for several in product(*each):
        whole = {name: value for one in several for name, value in one.items()}
        yield whole
        other = {name: value for one in reversed(several) for name, value in one.items()}
        if other != whole:
            yield other


def _truth(
    node: ast.expr, modules: Sequence[Module], settled: Options, hops: int, names: set[str]
) -> bool | None:
    """Whether a condition holds with these options, None where nobody knows; adds their names."""
    match node:
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            truth = _truth(operand, modules, settled, hops, names)
            return None if truth is None else not truth
        case ast.BoolOp(op=op, values=values):
            truths = [_truth(one, modules, settled, hops, names) for one in values]
            stops = isinstance(op, ast.Or)
            if stops in truths:
                return stops
            return None if None in truths else not stops
        case ast.Call() if hops:
            said = _said(node, modules)
            return _truth(said[0], said[1], settled, hops - 1, names) if said else None
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            option = _option(left, settled)
            if option is not None:
                names.add(option)
                return compared(op, settled[option], _constant(right))
        case ast.Attribute():
            option = _option(node, settled)
            if option is not None:
                names.add(option)
                return truth_of(settled[option])
    return None


def _said(node: ast.Call, modules: Sequence[Module]) -> tuple[ast.expr, list[Module]] | None:
    """What a call without arguments returns, where that is all it does, and whose names it has."""
    match node:
        case ast.Call(func=ast.Name(id=name), args=[], keywords=[]):
            found = (module.resolve(name) for module in modules)
            said = next((one for one in found if one is not None), None)
            value = returned(said) if isinstance(said, Function) else None
            if said is not None and value is not None:
                return value, [said.module]
    return None


# how far from a number the first one is for which a comparison holds
_BESIDE: dict[type[ast.cmpop], int] = {ast.Gt: 1, ast.GtE: 0, ast.Lt: -1, ast.LtE: 0}
_OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.Is: ast.IsNot,
    ast.In: ast.NotIn,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
}
_OPPOSITE |= {other: one for one, other in _OPPOSITE.items()}


def _compared(
    option: str, op: ast.cmpop, right: ast.expr, default: Any, *, holds: bool
) -> Iterator[Options]:
    """The option with each value that is written out and for which the comparison is as asked."""
    asked, value = type(op) if holds else _OPPOSITE[type(op)], _constant(right)
    if compared(asked(), default, value):
        yield {}
    elif asked in (ast.Eq, ast.Is) and value is not UNKNOWN and value is not None:
        yield {option: value}
    elif asked is ast.In and isinstance(value, tuple) and value:
        yield from ({option: one} for one in value)
    elif asked in _BESIDE and isinstance(value, int):
        yield {option: value + _BESIDE[asked]}
    else:
        yield {}


def _constant(node: ast.expr) -> Any:
    """A value that is written out; unknown for others."""
    with suppress(ValueError):
        value = ast.literal_eval(node)
        return tuple(value) if isinstance(value, list | set) else value
    return UNKNOWN


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
