"""Expressions: a syntax node in, a value out."""

import ast
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from verify.interpreter.comparisons import holds, operation
from verify.interpreter.index import Class, Definition, Function, Module
from verify.interpreter.state import State
from verify.interpreter.values import (
    NONE,
    Choice,
    Const,
    Instance,
    Items,
    Mapped,
    Primitive,
    Routine,
    Tensor,
    Text,
    Truth,
    Value,
    clipped,
    merge,
    parts_of,
    union,
)
from verify.logic.diagrams import FALSE, TRUE, Cond

TENSOR_FACTS = frozenset({"shape", "dtype", "device", "ndim", "is_cuda", "is_cpu", "numel", "size"})


class Expressions(ABC):
    """Evaluates expressions; calls are the business of the class that extends this one."""

    # by kind of node: `_name` for an `ast.Name`, `_do_if` for an `ast.If`
    handlers: ClassVar[Mapping[type[ast.AST], Callable[[Any, Any], Any]]]

    def __init_subclass__(cls) -> None:
        """Find the method for each kind of node once, not at each node."""
        super().__init_subclass__()
        cls.handlers = {
            kind: getattr(cls, name)
            for base, prefix in ((ast.expr, "_"), (ast.stmt, "_do_"))
            for kind in base.__subclasses__()
            if hasattr(cls, name := f"{prefix}{kind.__name__.lower()}")
        }

    def __init__(self, state: State) -> None:
        self.state = state
        self.logic = state.logic
        self.library = state.index.library
        self._globals: dict[tuple[Module, str], Value] = {}

    @abstractmethod
    def call_node(self, node: ast.Call) -> Value:
        """Evaluate a call."""

    @abstractmethod
    def call(
        self, target: Value, positional: tuple[Value, ...], keywords: Mapping[str, Value]
    ) -> Value:
        """Call a value."""

    def evaluate(self, node: ast.expr | None) -> Value:
        """The value of an expression."""
        if node is None:
            return NONE
        handler = self.handlers.get(type(node))
        return handler(self, node) if handler else self._unknown(node)

    def truth(self, value: Value) -> Cond:
        """When the value counts as true."""
        match value:
            case Truth(cond):
                return cond
            case Const(constant):
                return TRUE if constant else FALSE
            case Text(text):
                return self.logic.atom(text)
            case Items(values):
                return TRUE if values else FALSE
            case Choice(pairs):
                return self.logic.any_of(
                    *(self.logic.both(cond, self.truth(item)) for cond, item in pairs)
                )
        return TRUE

    def under(self, cond: Cond, node: ast.expr) -> Value:
        """Evaluate where `cond` holds only."""
        frame = self.state.frame
        before = frame.live
        entered = frame.live = self.logic.both(before, cond)
        value = self.evaluate(node)
        frame.live = self._left(before, ((entered, frame.live),))
        return value

    def over(self, value: Value, function: Callable[[Value], Value]) -> Value:
        """Apply `function` to each alternative, each where it holds, and merge the results."""
        if not isinstance(value, Choice):
            return function(value)
        frame = self.state.frame
        before = frame.live
        result: Value | None = None
        ways: list[tuple[Cond, Cond]] = []
        for cond, item in value.alternatives:
            entered = frame.live = self.logic.both(before, cond)
            if entered != FALSE:
                found = function(item)
                result = found if result is None else merge(self.logic, cond, found, result)
                ways.append((entered, frame.live))
        frame.live = self._left(before, ways)
        return result if result is not None else Text("unreachable")

    def _left(self, before: Cond, ways: Iterable[tuple[Cond, Cond]]) -> Cond:
        """The path condition after ways that were entered; some may have ended on the way."""
        for entered, after in ways:
            if after != entered:
                ended = self.logic.both(entered, self.logic.negation(after))
                before = self.logic.both(before, self.logic.negation(ended))
        return before

    def written(self, value: Value) -> str:
        """A stable text for a value, the name of the atoms made from it."""
        match value:
            case Text(text):
                return text
            case Const(constant):
                return repr(constant)[:40]
            case Truth(cond):
                return self.logic.text(cond)[:80]
            case Instance(cls=cls):
                return cls.name
            case Routine(target=target):
                return target.name
            case Tensor():
                return "tensor"
            case Items(values):
                return "(" + ", ".join(self.written(item) for item in values[:6]) + ")"
            case Primitive(kind=kind):
                return kind
        return type(value).__name__.lower()

    def combined(self, *values: Value) -> Value:
        """A value made from others in a way that is not followed: their partial sums remain."""
        parts = union(self.logic, *(parts_of(self.logic, value) for value in values))
        return Tensor(parts) if parts else Text("value")

    def _unknown(self, node: ast.expr) -> Value:
        children = ast.iter_child_nodes(node)
        return self.combined(*(self.evaluate(c) for c in children if isinstance(c, ast.expr)))

    def _constant(self, node: ast.Constant) -> Value:
        if isinstance(node.value, bool):
            return Truth(TRUE if node.value else FALSE)
        return Const(node.value)

    def _name(self, node: ast.Name) -> Value:
        return self.name(node.id)

    def name(self, name: str) -> Value:
        """What a name means in the innermost call."""
        frame = self.state.frame
        return frame.env.get(name) or self._global(frame.module, name)

    def _global(self, module: Module, name: str) -> Value:
        known = self._globals.get((module, name))
        if known is None:
            found = module.resolve(name)
            imported = module.imports.get(name)
            written = Text(imported[1] if imported and imported[1] else name)
            known = self._globals[module, name] = Routine(found) if found else written
        return known

    def _attribute(self, node: ast.Attribute) -> Value:
        found = self.qualified(node)
        if found is not None:
            return Routine(found)
        return self.attribute(self.evaluate(node.value), node.attr)

    def qualified(self, node: ast.expr) -> Definition | None:
        """What `file.name` means, where a whole file of the source was imported."""
        frame = self.state.frame
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner not in frame.env:
                return frame.module.qualified(owner, name)
        return None

    def attribute(self, owner: Value, name: str) -> Value:
        """`owner.name`."""
        if isinstance(owner, Choice):
            return self.over(owner, lambda item: self.attribute(item, name))
        match owner:
            case Instance():
                return self._instance_attribute(owner, name)
            case Primitive():
                return self._block_attribute(owner, name)
            case Routine(target=Class() as cls):
                return self._class_attribute(cls, name, owner)
            case Tensor() if name not in TENSOR_FACTS:
                return owner
            case Mapped(values=values) if name in values:
                return values[name]
        text = f"{self.written(owner)}.{name}"
        sizes = self.library.sizes
        return Text(sizes[text]) if text in sizes else clipped(text)

    def _block_attribute(self, block: Primitive, name: str) -> Value:
        if block.kind == "context":
            return self.state.published_field(name)
        found = self.library.attribute(self, block, name)
        if found is None:
            found = block.setting(name)
        return found if found is not None else Text(f"{block.kind}.{name}")

    def _instance_attribute(self, owner: Instance, name: str) -> Value:
        if name in owner.attributes:
            assigned, value = owner.assigned.get(name, TRUE), owner.attributes[name]
            if assigned == TRUE:
                return value
            if any(name in ancestor.assigned for ancestor in owner.cls.ancestors):
                # where the object has none of its own it has its class's
                otherwise = self._class_attribute(owner.cls, name, owner)
                return merge(self.logic, assigned, value, otherwise)
            # a path that reads what was never set there ends
            frame = self.state.frame
            frame.live = self.logic.both(frame.live, assigned)
            return value
        method = owner.cls.method(name)
        if method is not None:
            decorators = _decorators(method)
            if decorators & {"property", "cached_property"}:
                return self.call(Routine(method, owner), (), {})
            return Routine(method, None if "staticmethod" in decorators else owner)
        return self._class_attribute(owner.cls, name, owner)

    def _class_attribute(self, cls: Class, name: str, owner: Value) -> Value:
        method = cls.method(name)
        if method is not None:
            bound = owner if "classmethod" in _decorators(method) else None
            return Routine(method, bound)
        for ancestor in cls.ancestors:
            if name in ancestor.assigned:
                value = ancestor.assigned[name]
                if isinstance(value, ast.Constant):
                    return self.evaluate(value)
                return self._function_of_class(ancestor, value, owner) or Text(name)
        return Text(f"{cls.name}.{name}")

    def _function_of_class(self, cls: Class, value: ast.expr, owner: Value) -> Value | None:
        """A function that a class has under another name: `name = f`, `name = staticmethod(f)`."""
        match value:
            case ast.Name(id=written):
                bound = owner if isinstance(owner, Instance) else None
            case ast.Call(func=ast.Name(id="staticmethod"), args=[ast.Name(id=written)]):
                bound = None
            case _:
                return None
        found = cls.methods.get(written)
        function = Function(written, cls.module, cls) if found else cls.module.resolve(written)
        return Routine(function, bound) if isinstance(function, Function) else None

    def _subscript(self, node: ast.Subscript) -> Value:
        owner = self.evaluate(node.value)
        key = self.evaluate(node.slice) if not isinstance(node.slice, ast.Slice) else Text(":")
        return self.over(owner, lambda item: self._item(item, key))

    def _item(self, owner: Value, key: Value) -> Value:
        match owner, key:
            case Items(values), Const(int(index)) if -len(values) <= index < len(values):
                return values[index]
            case Items(values), _:
                return self.combined(*values)
            case Mapped(values=values), Const(str(word)) if word in values:
                return values[word]
            case Primitive(kind="many"), _:
                return owner.setting("item") or NONE
            case Tensor(), _:
                return owner
        return clipped(f"{self.written(owner)}[{self.written(key)}]")

    def _ifexp(self, node: ast.IfExp) -> Value:
        test = self.truth(self.evaluate(node.test))
        then = self.under(test, node.body) if test != FALSE else NONE
        opposite = self.logic.negation(test)
        otherwise = self.under(opposite, node.orelse) if opposite != FALSE else NONE
        return merge(self.logic, test, then, otherwise)

    def _boolop(self, node: ast.BoolOp) -> Value:
        conjunction = isinstance(node.op, ast.And)
        result = self.evaluate(node.values[0])
        for operand in node.values[1:]:
            so_far = self.truth(result)
            go_on = so_far if conjunction else self.logic.negation(so_far)
            if go_on == FALSE:
                break
            value = self.under(go_on, operand)
            if isinstance(result, Truth | Text) and isinstance(value, Truth | Text):
                join = self.logic.both if conjunction else self.logic.either
                result = Truth(join(so_far, self.truth(value)))
            else:
                result = merge(self.logic, go_on, value, result)
        return result

    def _unaryop(self, node: ast.UnaryOp) -> Value:
        operand = self.evaluate(node.operand)
        match node.op, operand:
            case ast.Not(), _:
                return Truth(self.logic.negation(self.truth(operand)))
            case ast.USub(), Const(int(number) | float(number)):
                return Const(-number)
        return operand

    def _binop(self, node: ast.BinOp) -> Value:
        left, right = self.evaluate(node.left), self.evaluate(node.right)
        parts = union(self.logic, parts_of(self.logic, left), parts_of(self.logic, right))
        if parts:
            return Tensor(parts)
        return clipped(operation(node.op, self.written(left), self.written(right)))

    def _compare(self, node: ast.Compare) -> Value:
        left = self.evaluate(node.left)
        result = TRUE
        for op, operand in zip(node.ops, node.comparators, strict=True):
            right = self.evaluate(operand)
            result = self.logic.both(result, self.compare(op, left, right))
            left = right
        return Truth(result)

    def compare(self, op: ast.cmpop, left: Value, right: Value) -> Cond:
        """When `left op right` holds."""
        return holds(op, left, right, logic=self.logic, written=self.written)

    def _call(self, node: ast.Call) -> Value:
        return self.call_node(node)

    def _namedexpr(self, node: ast.NamedExpr) -> Value:
        value = self.evaluate(node.value)
        frame = self.state.frame
        before = frame.env.get(node.target.id)
        # inside a condition a name is bound only where that part of the condition is reached
        bound = value if before is None else merge(self.logic, frame.live, value, before)
        frame.env[node.target.id] = bound
        return value

    def _tuple(self, node: ast.Tuple | ast.List) -> Value:
        values: list[Value] = []
        for item in node.elts:
            if isinstance(item, ast.Starred):
                inner = self.evaluate(item.value)
                values += inner.values if isinstance(inner, Items) else (inner,)
            else:
                values.append(self.evaluate(item))
        return Items(tuple(values))

    _list = _tuple

    def _dict(self, node: ast.Dict) -> Value:
        values: dict[str, Value] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            found = self.evaluate(value)
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                values[key.value] = found
            elif key is None and isinstance(found, Mapped):
                values.update(found.values)
        return Mapped(values)

    def _listcomp(self, node: ast.ListComp | ast.GeneratorExp) -> Value:
        frame = self.state.frame
        before = dict(frame.env)
        for generator in node.generators:
            iterated = self.evaluate(generator.iter)
            item = iterated.setting("item") if isinstance(iterated, Primitive) else None
            for name in ast.walk(generator.target):
                if isinstance(name, ast.Name):
                    frame.env[name.id] = item or Text(name.id)
        value = self.evaluate(node.elt)
        frame.env = before
        return Primitive("many", (("item", value),))

    _generatorexp = _listcomp

    def _lambda(self, node: ast.Lambda) -> Value:
        frame = self.state.frame
        return Routine(Function("<lambda>", frame.module, frame.owner, node), None, dict(frame.env))

    def _joinedstr(self, node: ast.JoinedStr) -> Value:
        return Text("text")

    def _await(self, node: ast.Await) -> Value:
        return self.evaluate(node.value)

    def _starred(self, node: ast.Starred) -> Value:
        return self.evaluate(node.value)


def _decorators(method: Function) -> set[str]:
    found = getattr(method.node, "decorator_list", [])
    return {node.id if isinstance(node, ast.Name) else getattr(node, "attr", "") for node in found}
