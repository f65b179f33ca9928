"""Statements: the path condition of everything that runs."""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import replace

from verify.interpreter.calls import Calls
from verify.interpreter.index import Function
from verify.interpreter.state import HANDLER, LOOP, TURN
from verify.interpreter.values import (
    Instance,
    Items,
    Primitive,
    Routine,
    Tensor,
    Text,
    Value,
    alternatives,
    merge,
    one_of,
    parts_of,
)
from verify.logic.diagrams import FALSE, TRUE, Cond


def _changed(before: Mapping[str, Value], after: Mapping[str, Value]) -> list[Value]:
    return [value for name, value in after.items() if before.get(name) is not value]


class Machine(Calls):
    """Runs method bodies symbolically: every branch, each under its condition."""

    def run_body(self, body: Sequence[ast.stmt]) -> None:
        """Run statements in the innermost frame, as far as the path condition leads."""
        frame = self.state.frame
        for statement in body:
            if frame.live == FALSE:
                return
            self.state.step()
            frame.line = statement.lineno
            handler = self.handlers.get(type(statement))
            if handler is not None:
                handler(self, statement)

    def _branch(self, test: Cond, then: Sequence[ast.stmt], otherwise: Sequence[ast.stmt]) -> None:
        frame = self.state.frame
        before, env = frame.live, frame.env
        entered = self.logic.both(before, test)
        if entered in (before, FALSE):
            self.run_body(then if entered == before else otherwise)
            return
        frame.live = entered
        frame.env = dict(env)
        self.run_body(then)
        then_live, then_env = frame.live, frame.env
        negation = self.logic.negation(test)
        opposite = frame.live = self.logic.both(before, negation)
        frame.env = dict(env)
        self.run_body(otherwise)
        if (then_live, frame.live) == (entered, opposite):
            frame.env = self._joined(test, then_env, negation, frame.env)
            frame.live = before
        else:
            frame.env = self._joined(then_live, then_env, frame.live, frame.env)
            frame.live = self.logic.either(then_live, frame.live)

    def _joined(
        self, then_live: Cond, then: dict[str, Value], other_live: Cond, other: dict[str, Value]
    ) -> dict[str, Value]:
        """The names after both branches; a branch that has left has no say."""
        if then_live == FALSE:
            return other
        if other_live == FALSE:
            return then
        joined = dict(other)
        for name, value in then.items():
            if name not in other:
                joined[name] = value
            elif other[name] is not value:
                joined[name] = one_of(self.logic, ((then_live, value), (other_live, other[name])))
        return joined

    def _do_if(self, node: ast.If) -> None:
        test = self.truth(self.evaluate(node.test))
        checks = isinstance(node.body[-1], ast.Raise) and not node.orelse
        if checks and not any(map(self.library.selects.search, self.logic.support(test))):
            # a check of the model's own shape: every configuration that runs passes it
            return
        self._branch(test, node.body, node.orelse)

    def _do_match(self, node: ast.Match) -> None:
        subject = self.written(self.evaluate(node.subject))
        rest: Sequence[ast.match_case] = node.cases
        self._match_rest(subject, rest)

    def _match_rest(self, subject: str, cases: Sequence[ast.match_case]) -> None:
        if not cases:
            return
        first, rest = cases[0], cases[1:]
        test = self.logic.atom(f"{subject} matches {ast.unparse(first.pattern)}"[:120])
        if isinstance(first.pattern, ast.MatchAs) and first.pattern.pattern is None:
            test = TRUE
        if first.guard is not None:
            test = self.logic.both(test, self.truth(self.evaluate(first.guard)))
        frame = self.state.frame
        before, env = frame.live, dict(frame.env)
        self._branch(test, first.body, ())
        left = self.logic.both(before, self.logic.negation(test))
        if rest and left != FALSE:
            done_live, done_env = frame.live, frame.env
            taken = self.logic.both(done_live, test)
            frame.live, frame.env = left, env
            self._match_rest(subject, rest)
            frame.env = self._joined(taken, done_env, frame.live, frame.env)
            frame.live = self.logic.either(taken, frame.live)

    def _do_return(self, node: ast.Return) -> None:
        frame = self.state.frame
        value = self.evaluate(node.value)
        frame.returns.append((frame.live, value))
        frame.live = FALSE

    def _leave(self, _node: ast.stmt) -> None:
        self.state.frame.live = FALSE

    _do_raise = _leave

    def _do_break(self, node: ast.stmt) -> None:
        frame = self.state.frame
        self.state.approximate(TURN, _changed(frame.turn, frame.env))
        self._leave(node)

    _do_continue = _do_break

    def _do_expr(self, node: ast.Expr) -> None:
        self.dropped = node.value
        self.evaluate(node.value)

    def _do_assign(self, node: ast.Assign) -> None:
        value = self.evaluate(node.value)
        for target in node.targets:
            self.assign(target, value)

    def _do_annassign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.assign(node.target, self.evaluate(node.value))

    def _do_augassign(self, node: ast.AugAssign) -> None:
        left, right = self.evaluate(node.target), self.evaluate(node.value)
        self.assign(node.target, self.combined(left, right))

    def assign(self, target: ast.expr, value: Value) -> None:
        """Bind a target."""
        frame = self.state.frame
        match target:
            case ast.Name(id=name):
                frame.env[name] = value
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                for index, item in enumerate(targets):
                    self.assign(item, self._unpacked(value, index, len(targets)))
            case ast.Starred(value=inner):
                self.assign(inner, value)
            case ast.Attribute(value=owner, attr=name):
                self._set_attribute(owner, name, value)
            case ast.Subscript(value=owner):
                held = self.evaluate(owner)
                if isinstance(held, Tensor) or parts_of(self.logic, value):
                    self.rebind(owner, self.combined(held, value))

    def _unpacked(self, value: Value, index: int, count: int) -> Value:
        def one(item: Value) -> Value:
            if isinstance(item, Items) and len(item.values) == count:
                return item.values[index]
            if isinstance(item, Tensor):
                return item
            return Text(f"{self.written(item)}[{index}]"[:120])

        return self.over(value, one)

    def _set_attribute(self, owner_node: ast.expr, name: str, value: Value) -> None:
        owner = self.evaluate(owner_node)
        if name == self.library.mark:
            self._mark_fusion(owner_node, owner, self.truth(value))
            return
        for cond, item in alternatives(owner):
            if isinstance(item, Instance):
                when = self.logic.both(self.state.live, cond)
                before = item.attributes.get(name)
                # where it was never set nobody reads it
                known = before is not None and when != TRUE
                item.attributes[name] = (
                    merge(self.logic, when, value, before) if known and before else value
                )
                set_before = item.assigned.get(name, FALSE)
                item.assigned[name] = self.logic.either(set_before, when)

    def _mark_fusion(self, node: ast.expr, owner: Value, marked: Cond) -> None:
        """The next layer's norm will sum this tensor up."""
        frame = self.state.frame
        live = frame.live
        frame.live = self.logic.both(live, marked)
        if frame.live != FALSE:
            self.sink("fused norm", owner, TRUE)
            gone = self.logic.negation(frame.live)
            left = tuple(
                replace(part, present=self.logic.both(part.present, gone))
                for part in parts_of(self.logic, owner)
            )
            if isinstance(node, ast.Name):
                frame.env[node.id] = Tensor(left) if left else owner
        frame.live = live

    def _do_with(self, node: ast.With | ast.AsyncWith) -> None:
        before = self.state.context
        for item in node.items:
            value = self.evaluate(item.context_expr)
            for cond, scope in alternatives(value):
                published = self._published(scope)
                if published is not None:
                    self._publish(cond, published)
            if item.optional_vars is not None:
                self.assign(item.optional_vars, value)
        self.run_body(node.body)
        self.state.context = before

    _do_asyncwith = _do_with

    def _published(self, entered: Value) -> Mapping[str, Value] | None:
        return self.library.scope(self, entered) if isinstance(entered, Primitive) else None

    def _publish(self, cond: Cond, fields: Mapping[str, Value]) -> None:
        merged = {
            name: merge(self.logic, cond, value, self.state.published_field(name))
            for name, value in fields.items()
        }
        self.state.with_context(merged)

    def _do_for(self, node: ast.For | ast.AsyncFor) -> None:
        iterated = self.evaluate(node.iter)
        item: Value = Text(f"{self.written(iterated)}[...]"[:120])
        if isinstance(iterated, Primitive):
            item = iterated.setting("item") or item
        elif isinstance(iterated, Items) and iterated.values:
            item = iterated.values[0]
        self.assign(node.target, item)
        self._loop(node.body)
        self.run_body(node.orelse)

    _do_asyncfor = _do_for

    def _do_while(self, node: ast.While) -> None:
        self.evaluate(node.test)
        self._loop(node.body)
        self.run_body(node.orelse)

    def _loop(self, body: Sequence[ast.stmt]) -> None:
        """One turn stands for all; what returned inside has left, what broke out goes on."""
        frame = self.state.frame
        before, returned, outer = frame.live, len(frame.returns), frame.turn
        frame.turn = dict(frame.env)
        self._inexactly(LOOP, body)
        frame.turn = outer
        left = self.logic.any_of(*(cond for cond, _ in frame.returns[returned:]))
        frame.live = self.logic.both(before, self.logic.negation(left))

    def _inexactly(self, kind: str, body: Sequence[ast.stmt]) -> None:
        """Run statements that are not all there is to run; noted where they make or move a sum."""
        frame = self.state.frame
        line, env, returned = frame.line, dict(frame.env), len(frame.returns)
        self.run_body(body)
        frame.line = line
        given_back = (value for _, value in frame.returns[returned:])
        self.state.approximate(kind, (*_changed(env, frame.env), *given_back))

    def _do_try(self, node: ast.Try) -> None:
        if all(isinstance(handler.body[-1], ast.Raise) for handler in node.handlers):
            # such a path ends: nothing is missed by not following it
            self.run_body(node.body)
        else:
            self._inexactly(HANDLER, node.body)
        self.run_body(node.orelse)
        self.run_body(node.finalbody)

    _do_trystar = _do_try

    def _do_functiondef(self, node: ast.FunctionDef) -> None:
        frame = self.state.frame
        frame.env[node.name] = Routine(
            Function(node.name, frame.module, frame.owner, node), None, dict(frame.env)
        )

    _do_asyncfunctiondef = _do_functiondef

    def _do_import(self, node: ast.Import) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            self.state.frame.env[name] = Text(name)

    def _do_importfrom(self, node: ast.ImportFrom) -> None:
        frame = self.state.frame
        names = ",".join(f"{a.name} as {a.asname}" if a.asname else a.name for a in node.names)
        dots = "." * node.level
        bound = frame.module.imported(dots, node.module or "", names)
        for name, (dotted, original) in bound.items():
            module = self.state.index.module_of(dotted)
            found = module.resolve(original) if module and original else None
            frame.env[name] = Routine(found) if found else Text(original or name)
