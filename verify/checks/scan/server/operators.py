"""Operators and collections: what is known is worked out, everything else is unknown."""

import ast
import operator
from abc import abstractmethod
from typing import Any

from verify.checks.scan.server.values import (
    BY_LAYER,
    SOME_TEXT,
    UNKNOWN,
    Frame,
    Member,
    Unknown,
    bounded,
    joined,
    known,
    truth_of,
    unknown_of,
)
from verify.interpreter.comparisons import ARITHMETIC, COMPARISONS

MAX_ITEMS = 64  # of a collection that is looked through
_IDENTITY, _MEMBERSHIP = (ast.Is, ast.IsNot), (ast.In, ast.NotIn)
_SEARCHED = (tuple, frozenset, dict)


class DeadError(Exception):
    """This way ends in a raise; another may not."""


class Operators:
    """Evaluates expressions made of others.

    `certain` says whether what is evaluated runs in every case, `sure` whether for some layer.
    """

    certain: bool
    sure: bool
    frame: Frame

    @abstractmethod
    def value(self, node: ast.expr) -> Any:
        """The value of an expression."""

    def _compare(self, node: ast.Compare) -> Any:
        left, result = self.value(node.left), True
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            right = self.value(right_node)
            one = self.compared(op, left, right)
            if one is None:
                return unknown_of(left, right)
            result, left = result and one, right
        return result

    def compared(self, op: ast.cmpop, left: Any, right: Any) -> bool | None:
        """A comparison; None where it is not known."""
        return compared(op, left, right)

    def spelled(self, *values: Any) -> None:
        """Something is done with words of the launch that is not told apart any further."""

    def _connected(self, node: ast.BoolOp) -> Any:
        stops = isinstance(node.op, ast.Or)
        certain, sure, last = self.certain, self.sure, UNKNOWN
        unknown: list[Any] = []
        try:
            for item in node.values:
                last = self.value(item)
                truth = truth_of(last)
                if truth is stops:
                    return stops if unknown else last
                if truth is None:
                    # whether the next one is asked is not known
                    unknown.append(last)
                    self.certain, self.sure = False, sure and last is BY_LAYER
        except DeadError:
            if self.certain == certain:
                raise
            return UNKNOWN
        finally:
            self.certain, self.sure = certain, sure
        if not unknown:
            return last
        return BY_LAYER if all(one is BY_LAYER for one in unknown) else UNKNOWN

    def _unary(self, node: ast.UnaryOp) -> Any:
        value = self.value(node.operand)
        if isinstance(node.op, ast.Not):
            truth = truth_of(value)
            return unknown_of(value) if truth is None else not truth
        if isinstance(node.op, ast.USub) and isinstance(value, int | float):
            return -value
        return UNKNOWN

    def _binary(self, node: ast.BinOp) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(node.op, ast.BitOr) and isinstance(left, dict):
            return {**left, **right} if isinstance(right, dict) else UNKNOWN
        run = ARITHMETIC.get(type(node.op))
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        lists = isinstance(left, tuple) and isinstance(right, tuple)
        if run is None or not (numbers or (lists and run is operator.add)):
            return unknown_of(left, right)
        try:
            return bounded(run(left, right))
        except (ArithmeticError, ValueError):
            return UNKNOWN

    def _subscript(self, node: ast.Subscript) -> Any:
        owner, key = self.value(node.value), self.value(node.slice)
        if not isinstance(owner, dict | tuple) or not known(key):
            return unknown_of(key)
        self.spelled(key)
        try:
            return owner[key]
        except (LookupError, TypeError):
            return UNKNOWN

    def _choice(self, node: ast.IfExp) -> Any:
        asked = self.value(node.test)
        test = truth_of(asked)
        if test is not None:
            return self.value(node.body if test else node.orelse)
        certain, self.certain = self.certain, False
        sure, self.sure = self.sure, self.sure and asked is BY_LAYER
        try:
            return joined(self.value(node.body), self.value(node.orelse))
        except DeadError:
            return UNKNOWN
        finally:
            self.certain, self.sure = certain, sure

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
                if not isinstance(value, dict):
                    return UNKNOWN
                found.update(value)
                continue
            name = self.value(key)
            if not isinstance(name, str | int | Member):
                return UNKNOWN
            self.spelled(name)
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


def compared(op: ast.cmpop, left: Any, right: Any) -> bool | None:
    """A comparison; None where it is not known."""
    if isinstance(op, _IDENTITY):
        if right is None and left is SOME_TEXT:
            return isinstance(op, ast.IsNot)
        if isinstance(left, Unknown) or isinstance(right, Unknown):
            return None
        same = left is right if right is None or left is None else _same(left, right)
        return None if same is None else same == isinstance(op, ast.Is)
    if isinstance(op, _MEMBERSHIP) and isinstance(right, _SEARCHED):
        if not known(left):
            return None
        there = left in tuple(item for item in right if known(item))
        if not there and not all(map(known, right)):
            return None
        return there == isinstance(op, ast.In)
    if not known(left) or not known(right):
        return None
    try:
        return bool(COMPARISONS[type(op)](left, right))
    except (KeyError, TypeError):
        return None


def _same(left: Any, right: Any) -> bool | None:
    return left == right if known(left) and known(right) else None
