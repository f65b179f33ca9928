"""Collectives that are not called by their own name: kept, returned or handed on as a value.

Calls are found by name, so that `REDUCERS["tp"](x)` or `pick()(x)` would be a sum that nobody has
seen. What is kept may be called anywhere: that is not analysed, and neither is a text that the file
runs. What a call is handed is called there: a step that is not exact.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from verify.checks.scan.sites import reducing_helpers
from verify.checks.scan.whole import imported
from verify.interpreter.index import Index, UnreadableError, parse
from verify.interpreter.state import Approximation

RUNS_TEXT = ("exec", "eval")
HANDED_ON = "sum handed to a call"
_RUNS = re.compile(r"\b(?<!\.)(?:exec|eval)\(")
# comments and imports say a name and keep nothing
_SAYS = re.compile(r"#[^\n]*|(?m:^[ \t]*(?:from|import)\b(?:[^\n(]*\([^)]*\)|[^\n]*))")


@dataclass(frozen=True, kw_only=True)
class Renamed:
    """A collective's name as a value in a class or function; `handed`: as an argument of a call."""

    file: str
    line: int
    within: str
    name: str
    handed: bool

    def __str__(self) -> str:
        why = "is kept as a value, and what calls it under another name is not followed"
        if self.name in RUNS_TEXT:
            why = "runs a text that was not read"
        return f"{self.file}:{self.line}: {self.name} {why}"

    @property
    def step(self) -> Approximation:
        """What is not exact where it is handed on."""
        return Approximation(HANDED_ON, self.file, self.line)


def renamed(index: Index) -> Iterator[Renamed]:
    """Every such name in a model file or a file of the layers that one imports."""
    names = frozenset(index.library.collectives) | reducing_helpers(index)
    methods = frozenset(index.library.group_methods)
    words = sorted((*names, *(f".{name}" for name in methods)))
    shown = "|".join(map(re.escape, words))
    value = re.compile(rf"(?<!def )(?:{shown})\b(?!\s*\()|\blambda\b[^\n]*(?:{shown})\(")
    for path in sorted({*index.tree.under(index.library.models), *imported(index)}):
        module = index.module(path)
        if module is None:
            continue
        has = module.text.__contains__
        runs = (has("exec(") or has("eval(")) and _RUNS.search(module.text)
        if not runs and not (any(map(has, words)) and value.search(_SAYS.sub("", module.text))):
            continue
        try:
            tree = parse(module.text, shown=path)
        except UnreadableError:
            continue  # a finding of its own
        for node, name, handed in _values(tree, names, methods):
            line = node.lineno
            pieces = module.pieces.items()
            within = next((one for one, piece in pieces if line in piece.lines), "")
            yield Renamed(file=path, line=line, within=within, name=name, handed=handed)


def _values(
    tree: ast.Module, names: frozenset[str], methods: frozenset[str]
) -> Iterator[tuple[ast.expr, str, bool]]:
    """Where a collective is a value, its name, and whether it is an argument of a call."""

    def collective(node: ast.AST) -> str:
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) if name in names:
                return name
            case ast.Attribute(value=group, attr=name) if name in methods:
                return name if "group" in ast.unparse(group) else ""
        return ""

    called: set[ast.expr] = set()
    handed: set[ast.expr] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(name)), *_]):
                called.add(node.func)
                if name in names:
                    yield node, name, False
            case ast.Call(func=ast.Name(id=name)) if name in RUNS_TEXT:
                yield node, name, False
            case ast.Call():
                called.add(node.func)
                if not _keeps(node.func):
                    handed.update((*node.args, *(keyword.value for keyword in node.keywords)))
    # a call in a function is a site by its own name; a function without a name is none
    for node in (inner for statement in _outside(tree.body) for inner in ast.walk(statement)):
        if isinstance(node, ast.Call) and (name := collective(node.func)):
            yield node, name, False
    for node in ast.walk(tree):
        name = collective(node)
        if isinstance(node, ast.expr) and name and node not in called:
            yield node, name, node in handed


def _outside(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that stand in no function."""
    for statement in body:
        if isinstance(statement, ast.ClassDef):
            yield from _outside(statement.body)
        elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement


def _keeps(called: ast.expr) -> bool:
    """Whether what is called gives back what it is handed."""
    match called:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name == "partial"
    return False
