"""Calls that are known by name: Python's and PyTorch's own functions, and a library's."""

import ast
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import ClassVar

from verify.interpreter.blocks import Blocks
from verify.interpreter.values import (
    NONE,
    Choice,
    Const,
    Instance,
    Items,
    Mapped,
    Partial,
    Primitive,
    Routine,
    Tensor,
    Truth,
    Value,
    alternatives,
    clipped,
    merge,
)
from verify.logic.diagrams import FALSE, TRUE, Cond

Arguments = tuple[Value, ...]
Keywords = Mapping[str, Value]
# asks whether something reduces, and does not
_ASKS = ("can_", "should_", "use_", "is_", "has_", "supports_")
_MOVES_ONLY = re.compile(r"gather|scatter|broadcast")
_REGISTERS = frozenset({"register_buffer", "register_parameter"})
_BUILT_IN = frozenset({"getattr", "hasattr", "isinstance", "bool", "tuple", "list", "dict", "zip"})


@lru_cache(maxsize=10_000)
def _sums(name: str, in_place: re.Pattern[str]) -> bool:
    """Whether a kernel's own collective is called so; nothing else is."""
    found = in_place.search(name) and not _MOVES_ONLY.search(name)
    return bool(name.endswith("all_reduce") or found) and not name.startswith(_ASKS)


class Named(Blocks):
    """Evaluates calls to what has a fixed meaning."""

    @abstractmethod
    def arguments(self, node: ast.Call) -> tuple[Arguments, dict[str, Value]]:
        """A call's arguments, evaluated."""

    @abstractmethod
    def assign(self, target: ast.expr, value: Value) -> None:
        """Bind a target."""

    def by_name(
        self, name: str, node: ast.Call, positional: Arguments, keywords: Keywords
    ) -> Value | None:
        """Functions that are known by their name; None for every other."""
        library = self.library
        made = self._generic.get(name) or library.functions.get(name)
        if made is not None:
            value = made(self, node, positional, keywords)
            if value is not None:
                return value
        first = positional[0] if positional else next(iter(keywords.values()), NONE)
        if name in library.collectives:
            return self.reduce(first, library.collectives[name])
        if not _sums(name, library.sums_in_place):
            return None
        if name.isidentifier() and isinstance(self.name(name), Routine):
            return None
        if name.endswith("all_reduce"):
            return self.reduce(first, library.whole)
        return self._summed_in_place(node, first)

    def _summed_in_place(self, node: ast.Call, first: Value) -> Value:
        """A kernel's collective that returns nothing: what it is handed is summed up."""
        summed = self.reduce(first, self.library.whole)
        for target in node.args[:2]:
            self.rebind(target, summed)
        return summed

    def _module_list(self, _: ast.Call, positional: Arguments, __: Keywords) -> Value:
        value = positional[0] if positional else NONE
        if isinstance(value, Items):
            return Primitive("many", (("item", value.values[0] if value.values else NONE),))
        return value

    def _partial(self, _: ast.Call, positional: Arguments, keywords: Keywords) -> Value:
        return Partial(positional[0] if positional else NONE, positional[1:], dict(keywords))

    _generic: ClassVar[Mapping[str, Callable[["Named", ast.Call, Arguments, Keywords], Value]]] = {
        "ModuleList": _module_list,
        "partial": _partial,
    }

    def rebind(self, target: ast.expr, value: Value) -> None:
        """Something was written into the tensor that `target` names."""
        frame = self.state.frame
        if isinstance(target, ast.Name):
            before = frame.env.get(target.id, value)
            frame.env[target.id] = merge(self.logic, frame.live, value, before)

    def by_syntax(self, node: ast.Call, name: str) -> Value | None:
        """Calls whose arguments are not evaluated like others."""
        func = node.func
        if isinstance(func, ast.Attribute) and isinstance(func.value, ast.Call):
            inner = func.value.func
            if isinstance(inner, ast.Name) and inner.id == "super":
                return self._super(node, func.attr)
        if isinstance(func, ast.Attribute) and name == "append":
            return self._append(func.value, node)
        if isinstance(func, ast.Attribute) and name in _REGISTERS:
            return self._register(func.value, node)
        if isinstance(func, ast.Name) and name in _BUILT_IN:
            match name, node.args:
                case "getattr", [owner, ast.Constant(value=str(attribute)), *default]:
                    return self._getattr(owner, attribute, default)
                case "hasattr", [owner, ast.Constant(value=str(attribute))]:
                    return self._hasattr(self.evaluate(owner), attribute)
                case "isinstance", [owner, kind]:
                    return self._isinstance(self.evaluate(owner), kind)
                case "bool", [argument]:
                    return Truth(self.truth(self.evaluate(argument)))
                case (("tuple" | "list"), [argument]):
                    return self.evaluate(argument)
                case "zip", [_, *_] as lists:
                    return self._zipped([self.evaluate(one) for one in lists])
                case "dict", []:
                    return Mapped(self.arguments(node)[1])
        return None

    def _append(self, name: ast.expr, node: ast.Call) -> Value | None:
        """A list that is known has one more, where the call is reached."""
        owner = self.state.frame.env.get(name.id) if isinstance(name, ast.Name) else None
        if owner is None or not any(isinstance(one, Items) for _, one in alternatives(owner)):
            return None
        item, *_ = self.arguments(node)[0] or (NONE,)

        def longer(one: Value) -> Value:
            return Items((*one.values, item)) if isinstance(one, Items) else one

        self.rebind(name, self.over(owner, longer))
        return NONE

    def _zipped(self, lists: Sequence[Value], done: tuple[Value, ...] = ()) -> Value:
        """Tuples of what lists have at each place, for each length that they may have."""
        if lists:
            return self.over(lists[0], lambda one: self._zipped(lists[1:], (*done, one)))
        known = [len(one.values) for one in done if isinstance(one, Items)]
        if not known:
            return self.combined(*done)
        # of a list that is not known nobody says that it is shorter
        columns = [one.values if isinstance(one, Items) else (one,) * min(known) for one in done]
        return Items(tuple(map(Items, zip(*columns, strict=False))))

    def _register(self, owner: ast.expr, node: ast.Call) -> Value | None:
        """A module's buffer or parameter under a name is an attribute that is set."""
        positional, keywords = self.arguments(node)
        named = (*positional, *keywords.values())
        if len(named) < 2 or not isinstance(named[0], Const) or not isinstance(named[0].value, str):
            return None
        target = ast.Attribute(value=owner, attr=named[0].value, ctx=ast.Store())
        self.assign(target, named[1])
        return NONE

    def _super(self, node: ast.Call, name: str) -> Value:
        frame = self.state.frame
        owner = frame.env.get("self")
        positional, keywords = self.arguments(node)
        if isinstance(owner, Instance) and frame.owner is not None:
            method = owner.cls.method(name, after=frame.owner)
            if method is not None:
                return self.call(Routine(method, owner), positional, keywords)
        return self.combined(*positional, *keywords.values())

    def _getattr(self, owner: ast.expr, name: str, default: Sequence[ast.expr]) -> Value:
        value = self.evaluate(owner)
        if not isinstance(value, Instance) or not default:
            return self.attribute(value, name)
        if name in value.attributes:
            known = value.assigned.get(name, TRUE)
            otherwise = self.evaluate(default[0])
            return merge(self.logic, known, value.attributes[name], otherwise)
        if value.cls.method(name) or any(name in c.assigned for c in value.cls.ancestors):
            return self.attribute(value, name)
        return self.evaluate(default[0])

    def _hasattr(self, owner: Value, name: str) -> Value:
        if isinstance(owner, Instance):
            if name in owner.attributes:
                return Truth(owner.assigned.get(name, TRUE))
            return Truth(TRUE if owner.cls.method(name) is not None else FALSE)
        return Truth(self.logic.atom(clipped(f"hasattr({self.written(owner)}, {name!r})").text))

    def _isinstance(self, owner: Value, kind: ast.expr) -> Value:
        kinds = self.evaluate(kind)
        named = kinds.values if isinstance(kinds, Items) else (kinds,)
        return Truth(self._is_a(owner, named, ast.unparse(kind)))

    def _is_a(self, owner: Value, kinds: Sequence[Value], shown: str) -> Cond:
        if isinstance(owner, Choice):
            return self.logic.any_of(
                *(self.logic.both(c, self._is_a(v, kinds, shown)) for c, v in owner.alternatives)
            )
        if isinstance(owner, Instance):
            wanted = {kind.target for kind in kinds if isinstance(kind, Routine)}
            return TRUE if wanted & set(owner.cls.ancestors) else FALSE
        if isinstance(owner, Tensor):
            return TRUE if "Tensor" in shown else FALSE
        return self.logic.atom(clipped(f"isinstance({self.written(owner)}, {shown})").text)
