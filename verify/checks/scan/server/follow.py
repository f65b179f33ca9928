"""Statements: known tests are followed, unknown ones both ways."""

import ast
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from verify.checks.scan.server.evaluate import Evaluator
from verify.checks.scan.server.operators import DeadError
from verify.checks.scan.server.values import (
    BY_LAYER,
    UNKNOWN,
    Code,
    Folder,
    Frame,
    Left,
    Thing,
    joined,
    truth_of,
)
from verify.interpreter.index import Function, FunctionNode

MAX_TURNS = 64  # of a loop over something known

# the names after one of two ways, and the things that it wrote to
Way = tuple[dict[str, Any], dict[int, tuple[Thing, Mapping[str, Any]]]]


class RefusedError(Exception):
    """The launch ends here, whatever is unknown: file, line and the line's own words."""

    def __init__(self, file: str, line: int) -> None:
        super().__init__(f"{file}:{line}")
        self.file, self.line = file, line


class Follower(Evaluator):
    """Follows a call through the source.

    `certain` says whether the statement that runs now runs in every case.
    """

    def body(self, statements: Sequence[ast.stmt]) -> bool:
        """Run statements; whether control has left them (returned, or left a loop)."""
        for statement in statements:
            self.step()
            self.frame.line = statement.lineno
            handler = self._statements.get(type(statement))
            if handler is not None and handler(self, statement):
                return True
        return False

    def call_code(self, code: Code, positional: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """The value of a call; unknown where it is one of several."""
        function = code.function
        node = function.node
        frame = Frame(function.module, function.owner, dict(code.scope or {}), function=function)
        certain, sure = self.certain, self.sure
        self.enter(frame)
        try:
            self.bind(code, positional, keywords)
            if isinstance(node, ast.Lambda):
                return self.value(node.body)
            if not self.body(node.body):
                frame.returns.append(None)
        except DeadError:
            if certain == self.certain or not frame.returns:
                raise
        finally:
            self.certain, self.sure = certain, sure
            self.leave()
        value = frame.returns[0]
        for other in frame.returns[1:]:
            value = joined(value, other)
        return value

    def _ends(self) -> None:
        if self.certain:
            raise RefusedError(self.frame.module.path, self.frame.line)
        raise DeadError

    def _raise(self, _: ast.Raise) -> bool:
        self._ends()
        return True

    def _assert(self, node: ast.Assert) -> bool:
        if truth_of(self.value(node.test)) is False:
            self._ends()
        return False

    def _return(self, node: ast.Return) -> bool:
        self.frame.returns.append(None if node.value is None else self.value(node.value))
        return self._leave("return")

    def _break(self, _: ast.Break) -> bool:
        return self._leave("break")

    def _continue(self, _: ast.Continue) -> bool:
        return self._leave("continue")

    def _leave(self, how: Left) -> bool:
        self.frame.left = how
        return True

    def _if(self, node: ast.If) -> bool:
        asked = self.value(node.test)
        test = truth_of(asked)
        if test is not None:
            return self.body(node.body if test else node.orelse)
        return self._either(
            lambda: self.body(node.body), lambda: self.body(node.orelse), asked=asked
        )

    def _either(
        self, one: Callable[[], bool], other: Callable[[], bool], *, asked: Any = UNKNOWN
    ) -> bool:
        """Two ways of which nobody knows which is taken; whether control has left both."""
        certain, self.certain = self.certain, False
        sure, self.sure = self.sure, self.sure and asked is BY_LAYER
        env, mark = self.frame.env, len(self.written)
        self.frame.env = dict(env)
        left_one = self._way(one)
        how, after_one = self.frame.left, self._take_back(mark)
        self.frame.env = dict(env)
        left_other = self._way(other)
        after_other = self._take_back(mark)
        self.certain, self.sure = certain, sure
        if left_one is None and left_other is None:
            self._ends()
        if left_one is None or left_other is None:
            # the other way is the one that is taken
            self._go_on(after_other if left_one is None else after_one)
            return bool(left_one or left_other)
        self._join(after_one, after_other)
        if left_one != left_other:
            # what follows in this call may not run
            self.frame.env = (after_other if left_one else after_one)[0]
            self.certain = self.sure = False
        elif left_one and how != self.frame.left:
            self.frame.left, self.certain, self.sure = "continue", False, False
        return left_one and left_other

    @staticmethod
    def _way(run: Callable[[], bool]) -> bool | None:
        """Whether control left the statements; None where they end in a raise."""
        try:
            return run()
        except DeadError:
            return None

    def _take_back(self, mark: int) -> Way:
        """What a way left behind; everything that it wrote since `mark` is taken back."""
        left = {id(thing): (thing, thing.fields) for thing, _ in self.written[mark:]}
        for thing, before in reversed(self.written[mark:]):
            thing.fields = before
        del self.written[mark:]
        return self.frame.env, left

    def _go_on(self, way: Way) -> None:
        """Go on with what a way left behind."""
        self.frame.env, left = way
        for thing, fields in left.values():
            self.replace_fields(thing, fields)

    def _join(self, one: Way, other: Way) -> None:
        """Go on with what is common to two ways."""
        self.frame.env = _merged(one[0], other[0])
        for key, (thing, fields) in {**one[1], **other[1]}.items():
            first = one[1].get(key, (thing, thing.fields))[1]
            second = other[1].get(key, (thing, thing.fields))[1]
            known = fields if first is second else _merged(first, second, thing.base)
            self.replace_fields(thing, known)

    def _for(self, node: ast.For) -> bool:
        items = self.value(node.iter)
        if isinstance(items, dict):
            items = tuple(items)
        if not isinstance(items, tuple) or len(items) > MAX_TURNS:
            return self._maybe(lambda: self._turn(node, UNKNOWN))
        for item in items:
            if self._turn(node, item) and self.frame.left != "continue":
                return self.frame.left == "return"
        return False

    def _turn(self, node: ast.For, item: Any) -> bool:
        self.assign(node.target, item)
        return self.body(node.body)

    def _maybe(self, run: Callable[[], bool]) -> bool:
        """Statements that may run or not."""
        self._either(run, lambda: False)
        return False

    def _while(self, node: ast.While) -> bool:
        if truth_of(self.value(node.test)) is False:
            return False
        return self._maybe(lambda: self.body(node.body))

    def _with(self, node: ast.With) -> bool:
        for item in node.items:
            value = self.value(item.context_expr)
            if item.optional_vars is not None:
                self.assign(item.optional_vars, value)
        return self.body(node.body)

    def _try(self, node: ast.Try) -> bool:
        """What is caught is no refusal, unless it is raised again."""
        again = all(
            isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None
            for handler in node.handlers
        )
        if again:
            left = self.body([*node.body, *node.orelse])
        else:
            handlers = [statement for handler in node.handlers for statement in handler.body]
            left = self._either(
                lambda: self.body([*node.body, *node.orelse]), lambda: self.body(handlers)
            )
        return self.body(node.finalbody) or left

    def _assign(self, node: ast.Assign) -> bool:
        value = self.value(node.value)
        for target in node.targets:
            self.assign(target, value)
        return False

    def _annotated(self, node: ast.AnnAssign) -> bool:
        if node.value is not None:
            self.assign(node.target, self.value(node.value))
        return False

    def _augmented(self, node: ast.AugAssign) -> bool:
        shown = ast.BinOp(_as_read(node.target), node.op, node.value)
        self.assign(node.target, self.value(shown))
        return False

    def assign(self, target: ast.expr, value: Any) -> None:
        """Bind a target."""
        match target:
            case ast.Name(id=name):
                self.frame.env[name] = value
            case ast.Tuple(elts=items) | ast.List(elts=items):
                whole = isinstance(value, tuple) and len(value) == len(items)
                for index, item in enumerate(items):
                    self.assign(item, value[index] if whole else UNKNOWN)
            case ast.Attribute(value=owner, attr=name):
                thing = self.value(owner)
                if isinstance(thing, Thing):
                    self.write(thing, {name: value})
            case ast.Subscript(value=owner, slice=key):
                held, index = self.value(owner), self.value(key)
                if isinstance(owner, ast.Name | ast.Attribute):
                    whole = isinstance(held, dict) and isinstance(index, str)
                    self.assign(owner, {**held, index: value} if whole else UNKNOWN)

    def _expression(self, node: ast.Expr) -> bool:
        self.value(node.value)
        return False

    def _define(self, node: FunctionNode) -> bool:
        frame = self.frame
        function = Function(node.name, frame.module, frame.owner, node)
        frame.env[node.name] = Code(function, None, frame.env)
        return False

    def _import_from(self, node: ast.ImportFrom) -> bool:
        frame = self.frame
        names = ",".join(f"{a.name} as {a.asname}" if a.asname else a.name for a in node.names)
        bound = frame.module.imported("." * node.level, node.module or "", names)
        for name, (dotted, original) in bound.items():
            frame.env[name] = self.imported(dotted, original)
        return False

    def _import(self, node: ast.Import) -> bool:
        for alias in node.names:
            module = self.index.module_of(alias.name)
            if alias.asname:
                self.frame.env[alias.asname] = Folder(module) if module else UNKNOWN
        return False

    _statements: Mapping[type[ast.stmt], Callable[["Follower", Any], bool]] = {
        ast.Raise: _raise,
        ast.Assert: _assert,
        ast.Return: _return,
        ast.Break: _break,
        ast.Continue: _continue,
        ast.If: _if,
        ast.For: _for,
        ast.While: _while,
        ast.With: _with,
        ast.Try: _try,
        ast.Assign: _assign,
        ast.AnnAssign: _annotated,
        ast.AugAssign: _augmented,
        ast.Expr: _expression,
        ast.FunctionDef: _define,
        ast.ImportFrom: _import_from,
        ast.Import: _import,
    }


def _as_read(target: ast.expr) -> ast.expr:
    """A target as an expression that reads it."""
    match target:
        case ast.Name(id=name):
            return ast.Name(name, ast.Load())
        case ast.Attribute(value=owner, attr=name):
            return ast.Attribute(owner, name, ast.Load())
    return ast.Constant(UNKNOWN)  # type: ignore[arg-type]


def _merged(
    one: Mapping[str, Any], other: Mapping[str, Any], base: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Names after two ways; one that only one of them bound has its value of before, if any."""
    found = dict(other)
    for name, value in one.items():
        beside = other[name] if name in other else base.get(name, UNKNOWN)
        found[name] = value if value is beside else joined(value, beside)
    for name in other.keys() - one.keys():
        found[name] = joined(other[name], base.get(name, UNKNOWN))
    return found
