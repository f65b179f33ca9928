"""Classes of a source's model files, followed through imports and inheritance."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from verify.emulator.statements import SourceFile
from verify.emulator.tree import SourceFiles
from verify.engines.sources import runtime

RUNTIME = runtime()
MODELS = RUNTIME.models


@dataclass(frozen=True)
class Definition:
    """A class and the file that defines it; `model` is the file's name below the models' folder."""

    model: str
    source: SourceFile
    node: ast.ClassDef


class Classes:
    """The classes of all model files, looked up as the code that names them would."""

    def __init__(self, files: SourceFiles) -> None:
        self._files = files
        self._holders: dict[tuple[str, str], bool] = {}

    def source(self, model: str) -> SourceFile:
        """A model's file. Raises KeyError where the source has none."""
        source = self._files.get(f"{MODELS}.{model}")
        if source is None:
            raise KeyError(model)
        return source

    def find(self, model: str, name: str) -> Definition | None:
        """What `name` is in a model's file; None where it is no class of a model file."""
        return self._find(model, name, set())

    def _find(self, model: str, name: str, asked: set[tuple[str, str]]) -> Definition | None:
        if (model, name) in asked:
            return None
        asked.add((model, name))
        source = self._files.get(f"{MODELS}.{model}")
        for index in source.binders.get(name, ()) if source else ():
            node = source.statements[index].node if source else None
            if isinstance(node, ast.ClassDef) and source:
                return Definition(model, source, node)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(MODELS + "."):
                other = (node.module or "").removeprefix(MODELS + ".")
                original = next(a.name for a in node.names if (a.asname or a.name) == name)
                return self._find(other, original, asked)
        return None

    def lineage(self, definition: Definition) -> Iterator[Definition]:
        """The class, then what it inherits from in model files, each once."""
        found: dict[ast.ClassDef, Definition] = {}
        self._inherited(definition, found)
        yield from found.values()

    def _inherited(self, definition: Definition, found: dict[ast.ClassDef, Definition]) -> None:
        if definition.node in found:
            return
        found[definition.node] = definition
        for base in definition.node.bases:
            parent = self.find(definition.model, base.id) if isinstance(base, ast.Name) else None
            if parent is not None:
                self._inherited(parent, found)

    def method(self, definition: Definition, name: str) -> ast.FunctionDef | None:
        """A method, its own or inherited."""
        for cls in self.lineage(definition):
            for node in cls.node.body:
                if isinstance(node, ast.FunctionDef) and node.name == name:
                    return node
        return None

    def constructors(self, definition: Definition) -> Iterator[tuple[str, ast.FunctionDef]]:
        """Constructors with the models that read their names, and methods that they call."""
        for cls in self.lineage(definition):
            methods = {n.name: n for n in cls.node.body if isinstance(n, ast.FunctionDef)}
            constructor = methods.get("__init__")
            if constructor is not None:
                yield cls.model, constructor
                for name in sorted(set(_own_calls(constructor)) & set(methods)):
                    yield cls.model, methods[name]

    def holds_experts(self, model: str, name: str) -> bool:
        """Whether `name`, as `model` reads it, is a class that builds experts or holds who does."""
        key = (model, name)
        if key not in self._holders:
            self._holders[key] = False
            definition = self.find(model, name)
            self._holders[key] = definition is not None and (
                any(
                    any(RUNTIME.experts.match(n) for n in names(constructor))
                    for _, constructor in self.constructors(definition)
                )
                or self.builds_blocks(model, name)
            )
        return self._holders[key]

    def builds_blocks(self, model: str, name: str) -> bool:
        """Whether `name`, as `model` reads it, builds a class that holds experts."""
        definition = self.find(model, name)
        return definition is not None and any(
            self.holds_experts(where, called)
            for where, constructor in self.constructors(definition)
            for called in calls(constructor)
        )


def classes(source: SourceFile) -> Iterator[ast.ClassDef]:
    """The classes that a file defines."""
    for statement in source.statements:
        if isinstance(statement.node, ast.ClassDef):
            yield statement.node


def calls(part: ast.AST) -> Iterator[str]:
    """Names that are called."""
    for node in ast.walk(part):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def names(part: ast.AST) -> Iterator[str]:
    """Names that are read."""
    for node in ast.walk(part):
        if isinstance(node, ast.Name):
            yield node.id


def strings(part: ast.AST) -> set[str]:
    """Texts."""
    constants = (node.value for node in ast.walk(part) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str)}


def parameters(function: ast.FunctionDef) -> set[str]:
    """A function's named parameters."""
    return {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}


def _own_calls(function: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)):
                yield name
