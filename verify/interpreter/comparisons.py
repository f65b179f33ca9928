"""Comparisons: known values compare, sizes become `size > 1`, the rest an atom as it is written."""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from verify.interpreter.values import NONE, Const, Text, Truth, Value, alternatives, clipped
from verify.logic.diagrams import FALSE, TRUE, Cond, Logic

Written = Callable[[Value], str]

COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], object]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
# what is worked out; shifts and powers may grow
ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
# written form of a comparison and whether it is the opposite of it
_WRITTEN: dict[type[ast.cmpop], tuple[str, bool]] = {
    ast.Eq: ("==", False),
    ast.NotEq: ("==", True),
    ast.Gt: (">", False),
    ast.LtE: (">", True),
    ast.Lt: ("<", False),
    ast.GtE: ("<", True),
    ast.Is: ("is", False),
    ast.IsNot: ("is", True),
    ast.In: ("in", False),
    ast.NotIn: ("in", True),
}
# the same comparison from the other side
_TURNED: Mapping[type[ast.cmpop], Callable[[], ast.cmpop]] = {
    ast.Eq: ast.Eq,
    ast.NotEq: ast.NotEq,
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}
_SIGNS: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.MatMult: "@",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.LShift: "<<",
    ast.RShift: ">>",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
}


def operation(op: ast.operator, left: str, right: str) -> str:
    """`left op right` as source writes it, operands of more than one word in brackets."""
    first, second = (f"({text})" if " " in text else text for text in (left, right))
    return f"{first} {_SIGNS[type(op)]} {second}"


def holds(op: ast.cmpop, left: Value, right: Value, *, logic: Logic, written: Written) -> Cond:
    """When `left op right` holds; `written` says how a value is written in an atom."""
    pairs = [
        (logic.both(a, b), one, other)
        for a, one in alternatives(left)
        for b, other in alternatives(right)
    ]
    return logic.any_of(
        *(logic.both(cond, _plain(op, a, b, logic, written)) for cond, a, b in pairs)
    )


def _plain(op: ast.cmpop, left: Value, right: Value, logic: Logic, written: Written) -> Cond:
    turned = _TURNED.get(type(op))
    if turned is not None and isinstance(left, Const) and not isinstance(right, Const):
        op, left, right = turned(), right, left
    identity = isinstance(op, ast.Is | ast.IsNot | ast.Eq | ast.NotEq)
    opposite = isinstance(op, ast.IsNot | ast.NotEq)
    if isinstance(left, Const) and isinstance(right, Const):
        try:
            return TRUE if COMPARISONS[type(op)](left.value, right.value) else FALSE
        except TypeError:
            return logic.atom(clipped(f"{left.value!r} ? {right.value!r}").text)
    if identity and right == NONE and not isinstance(left, Text | Const):
        return TRUE if opposite else FALSE
    if identity and isinstance(left, Truth) and isinstance(right, Truth):
        same = logic.choose(left.cond, right.cond, logic.negation(right.cond))
        return logic.negation(same) if opposite else same
    return _size_atom(op, left, right, logic) or _atom(op, left, right, logic, written)


def _size_atom(op: ast.cmpop, left: Value, right: Value, logic: Logic) -> Cond | None:
    """`size > 1` in whatever way it is written."""
    if not isinstance(left, Text) or not isinstance(right, Const):
        return None
    name = f"{left.text} > 1"
    match op, right.value:
        case (ast.Gt(), 1) | (ast.GtE(), 2) | (ast.NotEq(), 1):
            return logic.atom(name)
        case (ast.LtE(), 1) | (ast.Lt(), 2) | (ast.Eq(), 1):
            return logic.negation(logic.atom(name))
    return None


def _atom(op: ast.cmpop, left: Value, right: Value, logic: Logic, written: Written) -> Cond:
    sign, negated = _WRITTEN[type(op)]
    a, b = written(left), written(right)
    if sign == "==" and b < a and not isinstance(right, Const):
        a, b = b, a
    atom = logic.atom(clipped(f"{a} {sign} {b}").text)
    return logic.negation(atom) if negated else atom
