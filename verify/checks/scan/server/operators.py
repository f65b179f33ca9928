"""Operators and collections: what is known is worked out, everything else is unknown."""

import ast
import operator
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from verify.checks.scan.server.values import (
    UNKNOWN,
    Frame,
    Member,
    Unknown,
    bounded,
    joined,
    known,
    truth_of,
)

MAX_ITEMS = 64  # of a collection that is looked through

_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}


class DeadError(Exception):
    """This way ends in a raise; another may not."""


class Operators:
    """Evaluates expressions made of others.

    `certain` says whether what is evaluated runs in every case.
    """

    certain: bool
    frame: Frame

    @abstractmethod
    def value(self, node: ast.expr) -> Any:
        """The value of an expression."""

    def _compare(self, node: ast.Compare) -> Any:
        left, result = self.value(node.left), True
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            right = self.value(right_node)
            one = _compared(op, left, right)
            if one is None:
                return UNKNOWN
            result, left = result and one, right
        return result

    def _connected(self, node: ast.BoolOp) -> Any:
        stops = isinstance(node.op, ast.Or)
        certain, unknown, last = self.certain, False, UNKNOWN
        try:
            for item in node.values:
                last = self.value(item)
                truth = truth_of(last)
                if truth is stops:
                    return stops if unknown else last
                if truth is None:
                    # whether the next one is asked is not known
                    unknown, self.certain = True, False
        except DeadError:
            if self.certain == certain:
                raise
            return UNKNOWN
        finally:
            self.certain = certain
        return UNKNOWN if unknown else last

    def _unary(self, node: ast.UnaryOp) -> Any:
        value = self.value(node.operand)
        if isinstance(node.op, ast.Not):
            truth = truth_of(value)
            return UNKNOWN if truth is None else not truth
        if isinstance(node.op, ast.USub) and isinstance(value, int | float):
            return -value
        return UNKNOWN

    def _binary(self, node: ast.BinOp) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(node.op, ast.BitOr) and isinstance(left, Mapping):
            return {**left, **right} if isinstance(right, Mapping) else UNKNOWN
        run = _ARITHMETIC.get(type(node.op))
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        lists = isinstance(left, tuple) and isinstance(right, tuple)
        if run is None or not (numbers or (lists and run is operator.add)):
            return UNKNOWN
        try:
            return bounded(run(left, right))
        except (ArithmeticError, ValueError):
            return UNKNOWN

    def _subscript(self, node: ast.Subscript) -> Any:
        owner, key = self.value(node.value), self.value(node.slice)
        if not isinstance(owner, Mapping | tuple) or not known(key):
            return UNKNOWN
        try:
            return owner[key]
        except (LookupError, TypeError):
            return UNKNOWN

    def _choice(self, node: ast.IfExp) -> Any:
        test = truth_of(self.value(node.test))
        if test is not None:
            return self.value(node.body if test else node.orelse)
        certain, self.certain = self.certain, False
        try:
            return joined(self.value(node.body), self.value(node.orelse))
        except DeadError:
            return UNKNOWN
        finally:
            self.certain = certain

    def _collection(self, node: ast.List | ast.Tuple | ast.Set) -> Any:
        items: list[Any] = []
        for item in node.elts:
            value = self.value(item.value if isinstance(item, ast.Starred) else item)
            if not isinstance(item, ast.Starred):
                items.append(value)
            elif isinstance(value, tuple | frozenset):
                items += value
            else:
                return UNKNOWN
        return bounded(tuple(items))

    def _mapping(self, node: ast.Dict) -> Any:
        found: dict[Any, Any] = {}
        for key, item in zip(node.keys, node.values, strict=True):
            value = self.value(item)
            if key is None:
                if not isinstance(value, Mapping):
                    return UNKNOWN
                found.update(value)
                continue
            name = self.value(key)
            if not isinstance(name, str | int | Member):
                return UNKNOWN
            found[name] = value
        return found

    def _comprehension(self, node: ast.GeneratorExp | ast.ListComp | ast.SetComp) -> Any:
        first, *more = node.generators
        items = self.value(first.iter)
        if more or not isinstance(first.target, ast.Name) or not isinstance(items, tuple):
            return UNKNOWN
        before, found = dict(self.frame.env), []
        try:
            for item in items[:MAX_ITEMS]:
                self.frame.env[first.target.id] = item
                tests = [truth_of(self.value(test)) for test in first.ifs]
                if None in tests:
                    return UNKNOWN
                if all(tests):
                    found.append(self.value(node.elt))
        finally:
            self.frame.env = before
        return tuple(found)


def _compared(op: ast.cmpop, left: Any, right: Any) -> bool | None:
    """A comparison; None where it is not known."""
    if isinstance(op, ast.Is | ast.IsNot):
        if isinstance(left, Unknown) or isinstance(right, Unknown):
            return None
        same = left is right if right is None or left is None else _same(left, right)
        return None if same is None else same == isinstance(op, ast.Is)
    if isinstance(op, ast.In | ast.NotIn) and isinstance(right, tuple | frozenset | Mapping):
        if not known(left):
            return None
        there = left in tuple(item for item in right if known(item))
        if not there and not all(map(known, right)):
            return None
        return there == isinstance(op, ast.In)
    if not known(left) or not known(right):
        return None
    try:
        return bool(_COMPARE[type(op)](left, right))
    except (KeyError, TypeError):
        return None


def _same(left: Any, right: Any) -> bool | None:
    return left == right if known(left) and known(right) else None
