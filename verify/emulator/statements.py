"""A source file as top-level statements, and which names each of them binds."""

import __future__

import ast
from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from types import CodeType

from verify.errors import VerifyError

_FUTURE_FLAG = __future__.annotations.compiler_flag


@dataclass(frozen=True)
class Statement:
    """One top-level statement of `path`, compiled under the file's own name and lines.

    `future` says whether the file asks for unevaluated annotations.
    """

    path: str
    node: ast.stmt
    future: bool

    @cached_property
    def code(self) -> CodeType:
        """Ready for exec in the module's namespace."""
        # the types of parameters are for readers; evaluating them would load half the tree
        node = self.node if self.future else _QuoteSignatures().visit(self.node)
        module = ast.Module(body=[node], type_ignores=[])
        flags = _FUTURE_FLAG if self.future else 0
        code: CodeType = compile(module, self.path, "exec", flags=flags, dont_inherit=True)
        return code

    @cached_property
    def defines(self) -> str:
        """The name it is the definition of: `def`, `class`, or one assigned name; else empty."""
        match self.node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                return name
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                return name
        return ""

    @cached_property
    def needs(self) -> frozenset[str]:
        """Names that class bodies in it read while it runs.

        Python looks these up without a namespace's `__missing__`, so they must be there before.
        """
        return frozenset(
            name
            for node in ast.walk(self.node)
            if isinstance(node, ast.ClassDef)
            for statement in node.body
            for name in _read_now(statement, future=self.future)
        )


@dataclass(frozen=True)
class SourceFile:
    """The statements of one file; `binders[name]` are the indices that bind `name`, in order."""

    path: str
    statements: tuple[Statement, ...]
    binders: dict[str, tuple[int, ...]]
    star_imports: tuple[tuple[int, str | None], ...]


def read_source(path: str, text: str) -> SourceFile:
    """Parse a file. Raises `VerifyError` when it is not Python."""
    try:
        tree = ast.parse(text, filename=path)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise VerifyError(f"{path} is not Python that this interpreter reads: {error}") from error
    future = any(
        isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body
    )
    statements = tuple(Statement(path, node, future) for node in tree.body)
    binders: dict[str, list[int]] = {}
    stars: list[tuple[int, str | None]] = []
    for index, statement in enumerate(statements):
        for name in (*_bound(statement.node), *_changed(statement.node, binders)):
            indices = binders.setdefault(name, [])
            if index not in indices:
                indices.append(index)
        node = statement.node
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            stars.append((node.level, node.module))
    return SourceFile(
        path=path,
        statements=statements,
        binders={name: tuple(indices) for name, indices in binders.items()},
        star_imports=tuple(stars),
    )


@cache
def names_in(expression: str) -> frozenset[str]:
    """The names that a quoted annotation reads; none where it is not an expression."""
    try:
        tree = ast.parse(expression, mode="eval")
    except SyntaxError:
        return frozenset()
    return frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))


def _bound(node: ast.AST) -> Iterator[str]:
    """Names a statement binds in the namespace it runs in."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
        case ast.Import(names=names):
            yield from (name.asname or name.name.split(".")[0] for name in names)
        case ast.ImportFrom(names=names):
            yield from (name.asname or name.name for name in names if name.name != "*")
        case ast.Name(ctx=ast.Store()):
            yield node.id
        case ast.If() if "TYPE_CHECKING" in ast.unparse(node.test):
            for statement in node.orelse:
                yield from _bound(statement)
        case ast.Lambda() | ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            return
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _bound(child)


def _changed(node: ast.AST, bound: Container[str]) -> Iterator[str]:
    """Names, bound before, whose value the statement changes: `X.y = ...`, `X.register(...)`.

    Not `X.y = False` and the like: a constant assigned late closes something once the whole file
    has run, which here it never has.
    """
    root: ast.AST
    match node:
        case ast.Assign(value=ast.Constant()):
            return
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript() as target]):
            root = target
        case ast.Expr(value=ast.Call(func=ast.Attribute() as function)):
            root = function
        case _:
            return
    while isinstance(root, ast.Attribute | ast.Subscript):
        root = root.value
    if isinstance(root, ast.Name) and root.id in bound and root.id not in ("logger", "logging"):
        yield root.id


def _read_now(node: ast.AST, *, future: bool) -> Iterator[str]:
    """Names read when the statement runs: not inside functions, not in quoted annotations."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            parts: list[ast.AST | None] = [
                *node.decorator_list,
                *node.args.defaults,
                *node.args.kw_defaults,
            ]
        case ast.Lambda():
            parts = [*node.args.defaults, *node.args.kw_defaults]
        case ast.AnnAssign():
            parts = [node.value, None if future else node.annotation]
        case ast.Name(ctx=ast.Load()):
            yield node.id
            return
        case _:
            parts = list(ast.iter_child_nodes(node))
    for part in parts:
        if part is not None:
            yield from _read_now(part, future=future)


class _QuoteSignatures(ast.NodeTransformer):
    """Turns the annotations of functions into strings, as the future import would."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        """A parameter."""
        node.annotation = _quoted(node.annotation)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """A function: what it returns, and all that is inside. (The name is `ast`'s.)"""
        node.returns = _quoted(node.returns)
        self.generic_visit(node)
        return node


def _quoted(annotation: ast.expr | None) -> ast.expr | None:
    if annotation is None:
        return None
    return ast.copy_location(ast.Constant(value=ast.unparse(annotation)), annotation)
