"""Every way through one function: what it assumes and what it calls, in order.

A condition that is no local constant is an assumption, known by its text and the same wherever a
way meets it, also in other words (`x_size > 1`, `x_size == 1`); what contradicts it is no way.
A loop's body is passed once. A way that raises is none. A name that is returned and what is added
in place are calls too, of `return NAME` and `NAME += VALUE`.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

MAX_WAYS = 4096
# comparisons that say the same, and those that say the opposite
_ALIKE = (
    ((ast.Is,), (ast.IsNot,)),
    ((ast.In,), (ast.NotIn,)),
    ((ast.Eq,), (ast.NotEq,)),
)
# with the least that a group's size, or a number of rows or a rank, may be
_LEAST = ((ast.Eq, ast.LtE), (ast.NotEq, ast.Gt))
_SIZE = re.compile(r"_size(?:\(\))?$")
_COUNT = re.compile(r"rank(?:\(\))?$|shape\[0\]$|^len\(")


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call that a way makes: the last part of the function's name, where, and what it says."""

    name: str
    line: int
    node: ast.AST


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way through a function; `answer` is the truth it returns, None where that is none.

    `names` are local names whose truth is known by an expression.
    """

    assumed: Mapping[str, bool]
    calls: tuple[Call, ...] = ()
    names: Mapping[str, ast.expr]
    answer: bool | None = None
    line: int = 0

    def count(self, names: Sequence[str]) -> int:
        """How often it calls one of `names`."""
        return sum(call.name in names for call in self.calls)

    def holds(self, pattern: str, *, truth: bool) -> bool:
        """Whether it assumes a condition in which `pattern` is found to have that truth."""
        return any(
            known is truth and re.search(pattern, name) for name, known in self.assumed.items()
        )


class TooManyWaysError(Exception):
    """A function has more ways through it than are followed."""


def ways(function: ast.FunctionDef) -> list[Way]:
    """All of them; raises `TooManyWaysError`."""
    done: list[Way] = []
    start = Way(assumed={}, names={}, line=function.lineno)
    for way in _body(function.body, start, done):
        done.append(way)
    return done


def _body(body: Sequence[ast.stmt], way: Way, done: list[Way]) -> list[Way]:
    """The ways that leave `body` at its end; those that return are added to `done`."""
    going = [way]
    for statement in body:
        going = [after for one in going for after in _step(statement, one, done)]
        if len(going) + len(done) > MAX_WAYS:
            raise TooManyWaysError
    return going


def _step(statement: ast.stmt, way: Way, done: list[Way]) -> list[Way]:
    match statement:
        case ast.If(test=test, body=body, orelse=other):
            return [
                after
                for truth, one in truths(test, way)
                for after in _body(body if truth else other, one, done)
            ]
        case ast.Return(value=ast.IfExp() as either):
            for one, chosen in _chosen(either, way):
                done.extend(_returned(chosen, replace(one, line=statement.lineno)))
            return []
        case ast.Return(value=value):
            done.extend(_returned(value, replace(way, line=statement.lineno)))
            return []
        case ast.Raise():
            return []
        case ast.With(items=items, body=body):
            entered = _called([item.context_expr for item in items], way)
            return _body(body, entered, done)
        case ast.For(body=body, iter=source):
            return _body(body, _called([source], way), done)
        case ast.Try(body=body, finalbody=last):
            return [after for one in _body(body, way, done) for after in _body(last, one, done)]
        case ast.Assign(targets=targets, value=ast.IfExp() as either):
            return [
                after
                for one, chosen in _chosen(either, way)
                for after in _step(_assigned(targets, chosen, statement), one, done)
            ]
        case ast.Assign(targets=[ast.Name(id=name)], value=value) if _is_condition(value):
            return [replace(_called([value], way), names={**way.names, name: value})]
        case ast.Assign() | ast.AugAssign() | ast.AnnAssign() | ast.Expr():
            after = _called([statement], way)
            bound = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)} & set(way.names)
            kept = {n: e for n, e in way.names.items() if n not in bound}
            return [replace(after, names=kept if isinstance(statement, ast.Assign) else way.names)]
    return [way]


def _chosen(either: ast.IfExp, way: Way) -> Iterator[tuple[Way, ast.expr]]:
    for truth, one in truths(either.test, way):
        yield one, either.body if truth else either.orelse


def _assigned(targets: list[ast.expr], value: ast.expr, like: ast.stmt) -> ast.stmt:
    return ast.copy_location(ast.Assign(targets=targets, value=value), like)


def _returned(value: ast.expr | None, way: Way) -> Iterator[Way]:
    if isinstance(value, ast.Name | ast.Attribute):
        named = Call(name=f"return {_name(value)}", line=value.lineno, node=value)
        yield replace(way, calls=(*way.calls, named))
    elif value is not None and (_is_condition(value) or isinstance(value, ast.Call)):
        # a call may answer either; where it gives a tensor nobody asks for its truth
        for truth, one in truths(value, way):
            yield replace(one, answer=truth)
    else:
        yield way if value is None else _called([value], way)


def truths(test: ast.expr, way: Way) -> Iterator[tuple[bool, Way]]:
    """Each truth that `test` may have on a way, and the way with what that assumes."""
    match test:
        case ast.Constant(value=value):
            yield bool(value), way
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            for truth, one in truths(inner, way):
                yield not truth, one
        case ast.BoolOp(op=op, values=[first, *rest]):
            ends = isinstance(op, ast.Or)
            for truth, one in truths(first, way):
                if truth is ends or not rest:
                    yield truth, one
                else:
                    yield from truths(ast.BoolOp(op=op, values=rest), one)
        case ast.Name(id=name) if name in way.names:
            yield from truths(way.names[name], way)
        case _:
            text = ast.unparse(test)
            if text in way.assumed:
                yield way.assumed[text], way
            else:
                called = _called([test], way)
                for truth in (False,) if _another_is_it(test, way) else (True, False):
                    yield (
                        truth,
                        replace(called, assumed={**way.assumed, **_told(test, truth=truth)}),
                    )


def _told(test: ast.expr, *, truth: bool) -> dict[str, bool]:
    """What a condition's truth says, in all words of the same comparison."""
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        left, right = test.left, test.comparators[0]
        for same, other in (_LEAST, *_ALIKE) if _is_least(left, right) else _ALIKE:
            if isinstance(test.ops[0], (*same, *other)):
                holds = truth is isinstance(test.ops[0], same)
                words = dict.fromkeys(same, holds) | dict.fromkeys(other, not holds)
                return {_compared(left, op, right): said for op, said in words.items()}
    return {ast.unparse(test): truth}


def _compared(left: ast.expr, op: type[ast.cmpop], right: ast.expr) -> str:
    return ast.unparse(ast.Compare(left=left, ops=[op()], comparators=[right]))


def _is_least(left: ast.expr, right: ast.expr) -> bool:
    if not isinstance(right, ast.Constant) or right.value not in (0, 1):
        return False
    return bool((_SIZE if right.value == 1 else _COUNT).search(ast.unparse(left)))


def _another_is_it(test: ast.expr, way: Way) -> bool:
    """Whether the way assumes of what is compared that it is another member of the same kind."""
    match test:
        case ast.Compare(
            left=left,
            ops=[ast.Is() | ast.Eq() as op],
            comparators=[ast.Attribute(value=kind, attr=member)],
        ) if member.isupper():
            start = f"{ast.unparse(left)} {'is' if isinstance(op, ast.Is) else '=='} "
            start += f"{ast.unparse(kind)}."
            return any(
                known and text.startswith(start) and text[len(start) :].isupper()
                for text, known in way.assumed.items()
            )
    return False


def _is_condition(value: ast.expr) -> bool:
    plain = isinstance(value, ast.Constant) and isinstance(value.value, bool)
    return plain or isinstance(value, ast.BoolOp | ast.Compare) or _is_negation(value)


def _is_negation(value: ast.expr) -> bool:
    return isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not)


def _called(nodes: Sequence[ast.AST], way: Way) -> Way:
    """With the calls in `nodes`."""
    found = [
        Call(name=_name(inner.func), line=inner.lineno, node=inner)
        for node in nodes
        for inner in ast.walk(node)
        if isinstance(inner, ast.Call)
    ]
    added = [
        Call(name=ast.unparse(node), line=node.lineno, node=node)
        for node in nodes
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add)
    ]
    return replace(way, calls=(*way.calls, *reversed(found), *added))


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
