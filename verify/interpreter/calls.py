"""Calls: the source's own functions are followed, a library's building blocks known by name."""

import ast
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache

from verify.interpreter.index import Class, Function
from verify.interpreter.named import Named
from verify.interpreter.recursive import come_back
from verify.interpreter.state import (
    CALL,
    EFFECT,
    MAX_DEPTH,
    OBJECT,
    Called,
    Frame,
    UnresolvedError,
)
from verify.interpreter.values import (
    NONE,
    Choice,
    Const,
    Instance,
    Items,
    Mapped,
    Part,
    Partial,
    Primitive,
    Routine,
    Tensor,
    Text,
    Truth,
    Value,
    clipped,
    merge,
    one_of,
    parts_of,
    union,
)
from verify.logic.diagrams import FALSE, TRUE


@lru_cache(maxsize=10_000)
def _found(pattern: re.Pattern[str], text: str) -> bool:
    return bool(pattern.search(text))


class Calls(Named):
    """Evaluates calls; statements are the business of the class that extends this one."""

    # the expression of a statement that is nothing else: nobody keeps its value
    dropped: ast.expr | None = None

    @abstractmethod
    def run_body(self, body: Sequence[ast.stmt]) -> None:
        """Run statements in the innermost frame."""

    def call_node(self, node: ast.Call) -> Value:
        """Evaluate a call expression."""
        self.state.step()
        frame = self.state.frame
        name = self._called_name(node.func)
        special = self.by_syntax(node, name)
        if special is not None:
            return special
        receiver: Value | None = None
        target: Value
        known = name in self.library.collectives
        if isinstance(node.func, ast.Attribute) and self.qualified(node.func) is None:
            receiver = self.evaluate(node.func.value)
            target = Text(name) if known else self._method(receiver, name)
        else:
            target = Text(name) if known else self.evaluate(node.func)
        positional, keywords = self.arguments(node)
        before = frame.called, frame.called_name
        frame.called, frame.called_name = node, name
        try:
            if receiver is not None:
                found = self._by_method(receiver, node.func, positional, keywords)
                if found is not None:
                    return found
            found = self.by_name(name, node, positional, keywords)
            if found is not None:
                return found
            if isinstance(target, Text):
                if not name:
                    # what is called was worked out: it may be a collective, whoever is owed a sum
                    self.state.note(CALL)
                value = self._opaque(target, receiver, positional, keywords)
                self._write_out(node, value)
                return value
            return self.call(target, positional, keywords)
        finally:
            frame.called, frame.called_name = before

    def _called_name(self, node: ast.expr) -> str:
        """The last part of what is called; an imported name as it is called where it is defined."""
        if isinstance(node, ast.Attribute):
            return node.attr
        if isinstance(node, ast.Name):
            imported = self.state.frame.module.imports.get(node.id)
            return (imported[1] or node.id) if imported else node.id
        return ""

    def _method(self, receiver: Value, name: str) -> Value:
        if isinstance(receiver, Primitive) and receiver.kind != "context":
            return receiver
        return self.attribute(receiver, name)

    def arguments(self, node: ast.Call) -> tuple[tuple[Value, ...], dict[str, Value]]:
        """A call's arguments, evaluated."""
        positional: list[Value] = []
        for item in node.args:
            value = self.evaluate(item)
            if isinstance(item, ast.Starred):
                positional += value.values if isinstance(value, Items) else (value,)
            else:
                positional.append(value)
        keywords: dict[str, Value] = {}
        for keyword in node.keywords:
            value = self.evaluate(keyword.value)
            if keyword.arg is not None:
                keywords[keyword.arg] = value
            else:
                keywords.update(self._expanded(value))
        return tuple(positional), keywords

    def _expanded(self, value: Value) -> dict[str, Value]:
        """`**value`; where only some alternatives have a key, its absence is an alternative."""
        if isinstance(value, Mapped):
            return dict(value.values)
        if isinstance(value, Choice):
            found: dict[str, Value] = {}
            for cond, item in value.alternatives:
                for key, inner in self._expanded(item).items():
                    found[key] = merge(self.logic, cond, inner, found.get(key, Text("default")))
            return found
        return {}

    def _by_method(
        self,
        receiver: Value,
        func: ast.expr,
        positional: tuple[Value, ...],
        keywords: Mapping[str, Value],
    ) -> Value | None:
        name = func.attr if isinstance(func, ast.Attribute) else ""
        if isinstance(receiver, Choice):
            kinds = {type(value) for _, value in receiver.alternatives}
            if Primitive in kinds:
                # each alternative may be a block of its own
                return self.over(
                    receiver,
                    lambda item: (
                        self._by_method(item, func, positional, keywords)
                        or self.call(self._method(item, name), positional, keywords)
                    ),
                )
            if Tensor in kinds and kinds <= {Tensor, Text, Const}:
                receiver = Tensor(parts_of(self.logic, receiver))
        match receiver:
            case Primitive():
                return self.block_method(receiver, name, positional, keywords)
            case Text(text) if name in self.library.group_methods and "group" in text:
                return self.group_method(text, name, positional, keywords)
            case Tensor() if name.endswith("_") and isinstance(func, ast.Attribute):
                value = self.combined(receiver, *positional, *keywords.values())
                self.rebind(func.value, value)
                return value
            case Tensor():
                value = self.combined(receiver, *positional, *keywords.values())
                self._passed_through(parts_of(self.logic, value))
                return value
        return None

    def _write_out(self, node: ast.Call, value: Value) -> None:
        """`out=`: the result is written into a tensor that has a name already."""
        for keyword in node.keywords:
            if keyword.arg == "out":
                self.rebind(keyword.value, value)

    def _passed_through(self, parts: tuple[Part, ...]) -> None:
        """Note a call that is not followed; one without a result is called for its effect."""
        kind = EFFECT if self.state.frame.called is self.dropped else CALL
        self.state.approximate(kind, (Tensor(parts),))

    def _opaque(
        self,
        target: Text,
        receiver: Value | None,
        positional: tuple[Value, ...],
        keywords: Mapping[str, Value],
    ) -> Value:
        """A call that is not followed: the partial sums that go in may come out."""
        if target.text.endswith(self.library.new_values):
            return clipped(f"{target.text}(...)")
        values = [*positional, *keywords.values(), *([receiver] if receiver else [])]
        parts = union(self.logic, *(parts_of(self.logic, value) for value in values))
        if parts:
            self._passed_through(parts)
            return Tensor(parts)
        shown = ", ".join(self.written(value) for value in positional[:4])
        text = f"{target.text}({shown})"
        sizes = self.library.sizes
        return Text(sizes[text]) if text in sizes else clipped(text)

    def call(
        self, target: Value, positional: tuple[Value, ...], keywords: Mapping[str, Value]
    ) -> Value:
        """Call a value."""
        match target:
            case Choice():
                return self.over(target, lambda item: self.call(item, positional, keywords))
            case Partial(target=inner, positional=before, keywords=named):
                return self.call(inner, before + positional, {**named, **keywords})
            case Primitive():
                return self.block_call(target, positional, keywords)
            case Routine(target=Class() as cls):
                return self.build(cls, positional, keywords)
            case Routine(target=Function() as function):
                return self._function(target, function, positional, keywords)
            case Instance():
                forward = target.cls.method("forward") or target.cls.method("__call__")
                if forward is not None:
                    return self.call(Routine(forward, target), positional, keywords)
        shown = Text(self.written(target))
        return self._opaque(shown, None, positional, keywords)

    def build(
        self, cls: Class, positional: tuple[Value, ...], keywords: Mapping[str, Value]
    ) -> Value:
        """Construct an object."""
        for name, build in self.library.classes.items():
            if cls.named(name):
                return build(self, cls, positional, keywords)
        if not cls.module.path.startswith(self.library.models):
            self.state.approximate(OBJECT, (*positional, *keywords.values()))
            return Text(f"{cls.name}()")
        if self.is_attention(cls):
            return Primitive("opaque")
        instance = Instance(cls)
        init = cls.method("__init__")
        if init is not None:
            self.call(Routine(init, instance), positional, keywords)
        return instance

    def settings(
        self, cls: Class, positional: tuple[Value, ...], keywords: Mapping[str, Value]
    ) -> tuple[tuple[str, Value], ...]:
        """The constructor's arguments by name."""
        init = cls.method("__init__")
        names = [arg.arg for arg in init.node.args.args[1:]] if init else []
        return (*zip(names, positional, strict=False), *keywords.items())

    def _function(
        self,
        routine: Routine,
        function: Function,
        positional: tuple[Value, ...],
        keywords: Mapping[str, Value],
    ) -> Value:
        if not self._followed(function):
            if function.owner is not None:
                # an object that carries the tensor on, and what is left to do to it
                self.state.approximate(OBJECT, (*positional, *keywords.values()))
                return Text(f"{function.owner.name}.{function.name}()")
            return self._opaque(Text(function.name), None, positional, keywords)
        if len(self.state.frames) >= MAX_DEPTH:
            raise UnresolvedError(f"calls nested deeper than {MAX_DEPTH}")
        if routine.bound is not None:
            positional = (routine.bound, *positional)
        who = (function.module.path, function.node.lineno, id(routine.bound))
        again = come_back(
            self.state,
            who,
            (*positional, *keywords.values()),
            lambda: self._run(who, routine, function, positional, keywords),
        )
        if again is not None:
            return again
        frame = self._run(who, routine, function, positional, keywords)
        result = self._returned(frame)
        if isinstance(function.node, ast.Lambda):
            return result
        return self._condensed(function, result, positional)

    def _run(
        self,
        who: Called,
        routine: Routine,
        function: Function,
        positional: tuple[Value, ...],
        keywords: Mapping[str, Value],
    ) -> Frame:
        """Run a function's body; the frame says what it returned and when."""
        frame = Frame(
            module=function.module,
            method=function.name,
            owner=function.owner,
            live=TRUE,
            env=dict(routine.scope or {}),
            who=who,
        )
        self.state.entered.add((function.module.path, function.node.lineno))
        self.state.enter(frame)
        try:
            self.bind(function, positional, keywords)
            if isinstance(function.node, ast.Lambda):
                frame.returns.append((frame.live, self.evaluate(function.node.body)))
                frame.live = FALSE
            else:
                self.run_body(function.node.body)
        finally:
            self.state.leave()
        return frame

    def _condensed(self, function: Function, result: Value, positional: tuple[Value, ...]) -> Value:
        """A predicate that asks nothing about parallelism is one atom, however long it is."""
        if self.state.theory or not isinstance(result, Truth):
            return result
        support = self.logic.support(result.cond)
        # what decides about sums must stay visible
        if len(support) < 2 or any(_found(self.library.relevant, atom) for atom in support):
            return result
        shown = ", ".join(self.written(value) for value in positional[:4])
        return Truth(self.logic.atom(clipped(f"{function.name}({shown})").text))

    def _followed(self, function: Function) -> bool:
        """Whether a function is run, or stays a name."""
        path = function.module.path
        models, layers, accessor = self.library.models, self.library.layers, self.library.accessor
        if path.startswith(models) or self.state.theory:
            return path.startswith((models, layers)) and not accessor.match(function.name)
        if function.owner is not None or not path.startswith(layers):
            return False
        piece = function.module.pieces.get(function.name)
        worth = piece is not None and bool(self.library.worth_following.search(piece.text))
        return worth and not accessor.match(function.name)

    def _returned(self, frame: Frame) -> Value:
        """The value of a call; where the callee raised, the caller does not go on."""
        pairs = [(cond, value) for cond, value in frame.returns if cond != FALSE]
        if frame.live != FALSE:
            pairs.append((frame.live, NONE))
        came_back = self.logic.any_of(*(cond for cond, _ in pairs))
        self.state.frame.live = self.logic.both(self.state.frame.live, came_back)
        return one_of(self.logic, pairs) if pairs else NONE

    def bind(
        self, function: Function, positional: tuple[Value, ...], keywords: Mapping[str, Value]
    ) -> None:
        """Fill the innermost frame's names from a call's arguments."""
        arguments = function.node.args
        env = self.state.frame.env
        names = [arg.arg for arg in (*arguments.posonlyargs, *arguments.args)]
        defaults = dict(
            zip(names[len(names) - len(arguments.defaults) :], arguments.defaults, strict=False)
        )
        for arg, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=False):
            names.append(arg.arg)
            if default is not None:
                defaults[arg.arg] = default
        given = dict(zip(names, positional, strict=False))
        for name in names:
            if name in keywords:
                given[name] = keywords[name]
            elif name not in given:
                given[name] = self.evaluate(defaults[name]) if name in defaults else Text(name)
        env.update(given)
        if arguments.vararg:
            env[arguments.vararg.arg] = Items(positional[len(names) :])
        if arguments.kwarg:
            env[arguments.kwarg.arg] = Mapped(
                {key: value for key, value in keywords.items() if key not in names}
            )
