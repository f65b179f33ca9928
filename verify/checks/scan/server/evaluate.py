"""Expressions: what is known is worked out, everything else is unknown."""

import ast
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from verify.checks.scan.server.operators import Operators
from verify.checks.scan.server.values import (
    UNKNOWN,
    Backend,
    Built,
    Code,
    Folder,
    Frame,
    Member,
    Native,
    Thing,
    Unknown,
    bounded,
    known,
    truth_of,
    unknown_of,
)
from verify.interpreter.frames import Frames
from verify.interpreter.index import Class, Function, Index, Module, UnreadableError

MAX_DEPTH = 25
MAX_ACTIVE = 2  # calls of one function inside each other
MAX_STEPS = 60_000

_CALLED = (Code, Built, Unknown, Native)
_TEXT_METHODS = frozenset({"lower", "upper", "startswith", "endswith", "strip", "split", "replace"})
_BUILT_IN: Mapping[str, Callable[..., Any]] = {
    "len": len,
    "min": min,
    "max": max,
    "abs": abs,
    "int": int,
    "str": str,
    "tuple": tuple,
    "list": tuple,
    "set": frozenset,
    "frozenset": frozenset,
    "sorted": lambda items: tuple(sorted(items)),
}


class TooMuchError(Exception):
    """The source takes more steps than are allowed."""


class Evaluator(Operators, Frames[Frame]):
    """Evaluates expressions in the innermost frame.

    `natives` are done in place of a call; objects are built of classes under `builds` only.
    """

    def __init__(
        self,
        index: Index,
        natives: Mapping[str, Callable[..., Any]],
        *,
        builds: tuple[str, ...] = ("",),
    ) -> None:
        self.index = index
        self.builds = builds
        self.natives = natives
        self.certain = self.sure = True
        self.written: list[tuple[Thing, Mapping[str, Any]]] = []
        self.frames = []
        self.steps = 0
        self.model: Any = UNKNOWN

    @abstractmethod
    def call_code(self, code: Code, positional: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """The value of a call of the source's own code."""

    def step(self, count: int = 1) -> None:
        """Count statements or calls."""
        self.steps += count
        if self.steps > MAX_STEPS:
            raise TooMuchError

    @property
    def here(self) -> str:
        """The statement that runs: its file and line."""
        return f"{self.frame.module.path}:{self.frame.line}"

    def write(self, thing: Thing, values: Mapping[str, Any]) -> None:
        """Give a thing's fields new values; what was can be taken back."""
        self.replace_fields(thing, {**thing.fields, **values})
        thing.places.update(dict.fromkeys(values, self.here))

    def replace_fields(self, thing: Thing, fields: Mapping[str, Any]) -> None:
        """Give a thing other fields, and keep in mind which it had."""
        self.written.append((thing, thing.fields))
        thing.fields = fields

    def value(self, node: ast.expr) -> Any:
        """The value of an expression."""
        handler = self._expressions.get(type(node))
        return handler(self, node) if handler else UNKNOWN

    def _name(self, node: ast.Name) -> Any:
        env = self.frame.env
        return env[node.id] if node.id in env else self.global_value(self.frame.module, node.id)

    def global_value(self, module: Module, name: str) -> Any:
        """What a name means at the top level of a file."""
        found = module.resolve(name)
        if isinstance(found, Class):
            return Built(found)
        if isinstance(found, Function):
            return Code(found)
        if name in _BUILT_IN or name in self.natives:
            return Native(lambda *args: self._built_in(name, args))
        if name in module.imports:
            return self.imported(*module.imports[name])
        written = assigned(module, name)
        if written is None:
            return UNKNOWN
        self.enter(Frame(module, None, {}))
        try:
            return self.value(written)
        finally:
            self.leave()

    def imported(self, dotted: str, original: str | None) -> Any:
        """What an import binds."""
        module = self.index.module_of(dotted)
        if module is None or original is None:
            inner = self.index.module_of(f"{dotted}.{original}") if original else module
            return Folder(inner) if inner else UNKNOWN
        value = self.global_value(module, original)
        if isinstance(value, Unknown):
            inner = self.index.module_of(f"{dotted}.{original}")
            return Folder(inner) if inner else UNKNOWN
        return value

    def _attribute(self, node: ast.Attribute) -> Any:
        return self.member(self.value(node.value), node.attr)

    def member(self, owner: Any, name: str) -> Any:
        """A field, method or property of a value."""
        match owner:
            case Backend():
                called = owner.is_called(name)
                return UNKNOWN if isinstance(called, Unknown) else Native(lambda: called)
            case Thing(cls=cls, fields=fields, base=base):
                if name in fields:
                    return fields[name]
                if name in base:
                    return base[name]
                method = cls.method(name) if cls else None
                if method is None:
                    return UNKNOWN
                code = Code(method, owner)
                shown = _decorators(method.node)
                if any("property" in one for one in shown):
                    return self.call_code(code, (), {})
                return Code(method) if "staticmethod" in shown else code
            case Built(cls=cls):
                method = cls.method(name)
                if method is not None:
                    return Code(method, owner if "cls" in _first(method) else None)
                return (
                    Member(cls.name, name)
                    if any(name in c.assigned for c in cls.ancestors)
                    else UNKNOWN
                )
            case Folder(module=module):
                return self.global_value(module, name)
            case str() if name in _TEXT_METHODS:
                self.spelled(owner)
                return Native(getattr(owner, name))
            case dict() if name == "get":
                return Native(lambda key, default=None: self.looked_up(owner, key, default))
            case dict() if name in ("keys", "values", "items"):
                return Native(lambda: tuple(getattr(owner, name)()))
        return UNKNOWN

    @staticmethod
    def looked_up(owner: Mapping[str, Any], key: Any, default: Any) -> Any:
        """`owner.get(key, default)`."""
        return owner.get(key, default) if known(key) else UNKNOWN

    def _call(self, node: ast.Call) -> Any:
        self.step()
        func = node.func
        name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
        if isinstance(func, ast.Name) and name in ("getattr", "hasattr", "isinstance", "bool"):
            return self._asked(name, node)
        if name in ("any", "all") and len(node.args) == 1:
            return self._quantified(node.args[0], every=name == "all")
        target = self.value(func)
        positional, keywords = self.arguments(node)
        if name in self.natives and isinstance(target, _CALLED):
            receiver = self.value(func.value) if isinstance(func, ast.Attribute) else None
            result = self.natives[name](self, receiver, positional, keywords)
            if result is not NotImplemented:
                return result
        self._grown(func)
        return self.call(target, positional, keywords)

    def _grown(self, func: ast.expr) -> None:
        """A collection that a method adds to is not known any more."""
        grows = ("append", "extend", "add", "update", "pop", "setdefault", "remove", "insert")
        owner = func.value if isinstance(func, ast.Attribute) and func.attr in grows else None
        if isinstance(owner, ast.Name) and not isinstance(self.frame.env.get(owner.id), Thing):
            self.frame.env[owner.id] = UNKNOWN

    def call(self, target: Any, positional: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Call a value."""
        match target:
            case Native(run=run):
                self.spelled(*positional)
                try:
                    return _plain(run(*positional, **keywords))
                except (TypeError, ValueError, ArithmeticError, AttributeError):
                    return UNKNOWN
            case Code(function=function):
                active = sum(frame.function is function for frame in self.frames)
                if len(self.frames) > MAX_DEPTH or active > MAX_ACTIVE:
                    return UNKNOWN
                try:
                    return self.call_code(target, positional, keywords)
                except UnreadableError:
                    return UNKNOWN
            case Built(cls=cls) if cls.module.path.startswith(self.builds):
                made = Thing(cls)
                init = cls.method("__init__")
                if init is not None:
                    self.call(Code(init, made), positional, keywords)
                elif positional or keywords:
                    # none is written: it is generated from the fields
                    made.fields = _generated(cls, positional, keywords)
                return made
        return unknown_of(*positional, *keywords.values())

    def arguments(self, node: ast.Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A call's arguments, evaluated."""
        positional: list[Any] = []
        for item in node.args:
            if isinstance(item, ast.Starred):
                value = self.value(item.value)
                positional += value if isinstance(value, tuple) else (UNKNOWN,)
            else:
                positional.append(self.value(item))
        keywords: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self.value(keyword.value)
            if keyword.arg is not None:
                keywords[keyword.arg] = value
            elif isinstance(value, dict):
                keywords.update(value)
        return tuple(positional), keywords

    def bind(self, code: Code, positional: Sequence[Any], keywords: Mapping[str, Any]) -> None:
        """Fill the innermost frame's names from a call's arguments."""
        arguments, env = code.function.node.args, self.frame.env
        given = (code.bound, *positional) if code.bound is not None else tuple(positional)
        names = [arg.arg for arg in (*arguments.posonlyargs, *arguments.args)]
        defaults = dict(zip(reversed(names), reversed(arguments.defaults), strict=False))
        for arg, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            names.append(arg.arg)
            if default is not None:
                defaults[arg.arg] = default
        count = len(arguments.posonlyargs) + len(arguments.args)
        bound = dict(zip(names[:count], given, strict=False))
        for name in names:
            if name in keywords:
                env[name] = keywords[name]
            elif name in bound:
                env[name] = bound[name]
            else:
                env[name] = self.value(defaults[name]) if name in defaults else UNKNOWN
        if arguments.vararg:
            env[arguments.vararg.arg] = given[count:]
        if arguments.kwarg:
            rest = {key: value for key, value in keywords.items() if key not in names}
            env[arguments.kwarg.arg] = rest

    def _asked(self, name: str, node: ast.Call) -> Any:
        values = [self.value(argument) for argument in node.args]
        if name == "bool" and len(values) == 1:
            truth = truth_of(values[0])
            return UNKNOWN if truth is None else truth
        if name == "getattr" and len(values) > 1 and isinstance(values[1], str):
            self.spelled(values[1])
            found = self.member(values[0], values[1])
            absent = isinstance(values[0], Thing) and values[0].whole and found is UNKNOWN
            return values[2] if absent and len(values) > 2 else found
        if name == "isinstance" and len(values) == 2 and isinstance(values[0], Thing):
            kinds = values[1] if isinstance(values[1], tuple) else (values[1],)
            own = values[0].cls.ancestors if values[0].cls else ()
            if any(isinstance(kind, Built) and kind.cls in own for kind in kinds):
                return True
        return UNKNOWN

    def _quantified(self, node: ast.expr, *, every: bool) -> Any:
        items = self.value(node)
        if not isinstance(items, tuple):
            return UNKNOWN
        truths = {truth_of(item) for item in items}
        if (not every) in truths:
            return not every
        return UNKNOWN if None in truths else every

    def _built_in(self, name: str, values: Sequence[Any]) -> Any:
        if name in _BUILT_IN and all(map(known, values)):
            return _BUILT_IN[name](*values)
        return UNKNOWN

    def _lambda(self, node: ast.Lambda) -> Any:
        function = Function("<lambda>", self.frame.module, self.frame.owner, node)
        return Code(function, None, dict(self.frame.env))

    _expressions: Mapping[type[ast.expr], Callable[["Evaluator", Any], Any]] = {
        ast.Constant: lambda _, node: node.value,
        ast.Name: _name,
        ast.Attribute: _attribute,
        ast.Call: _call,
        ast.Compare: Operators._compare,
        ast.BoolOp: Operators._connected,
        ast.UnaryOp: Operators._unary,
        ast.BinOp: Operators._binary,
        ast.Subscript: Operators._subscript,
        ast.IfExp: Operators._choice,
        ast.List: Operators._collection,
        ast.Tuple: Operators._collection,
        ast.Set: Operators._collection,
        ast.Dict: Operators._mapping,
        ast.GeneratorExp: Operators._comprehension,
        ast.ListComp: Operators._comprehension,
        ast.SetComp: Operators._comprehension,
        ast.Lambda: _lambda,
    }


def _generated(
    cls: Class, positional: Sequence[Any], keywords: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The fields that a constructor sets which no class writes; none where one cannot be read."""
    try:
        names = dict.fromkeys(name for one in reversed(cls.ancestors) for name in one.annotated)
    except UnreadableError:
        return {}
    given = dict(zip(names, positional, strict=False))
    return {**given, **{name: value for name, value in keywords.items() if name in names}}


def _plain(value: Any) -> Any:
    """A result of Python's own functions: lists are tuples here."""
    return bounded(tuple(value) if isinstance(value, list) else value)


@lru_cache(maxsize=4096)
def _decorators(node: ast.AST) -> tuple[str, ...]:
    return tuple(ast.unparse(one) for one in getattr(node, "decorator_list", ()))


def _first(function: Function) -> str:
    arguments = function.node.args.args
    return arguments[0].arg if arguments else ""


@lru_cache(maxsize=4096)
def assigned(module: Module, name: str) -> ast.expr | None:
    """The value of a top-level name of a file that is assigned once, and by no function."""
    # the word boundary behind the first word lets the search skip to the next one
    if re.search(rf"global (?<!\wglobal )[^\n]*\b{re.escape(name)}\b", module.text):
        return None
    found = re.findall(
        rf"\n{re.escape(name)}[ \t]*(?::[^=\n]*)?=(?!=)(.*(?:\n(?:[ \t)\]}}#].*)?)*)", module.text
    )
    if len(found) != 1:
        return None
    try:
        return ast.parse(f"({found[0].strip()}\n)", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
