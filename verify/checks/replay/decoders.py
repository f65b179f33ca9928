"""Which classes of a source are decoder layers with a mixture-of-experts block, found by reading.

A block is a class whose constructor builds expert layers; a decoder layer is a class whose
constructor builds a block. Both are followed through inheritance and through imports between
model files, never by their names.
"""

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from verify.checks.replay.classes import (
    MODELS,
    Classes,
    Definition,
    calls,
    classes,
    names,
    parameters,
    strings,
)
from verify.emulator.statements import SourceFile
from verify.emulator.tree import SourceFiles
from verify.engines.sources import runtime

# norms are named after what they precede
_ATTENTION = re.compile(r"^(?!.*norm).*(attn|attention|mixer|mamba|short_conv|^mix$)")
# a layer that builds it is its own attention: its projections run, only the core is replaced
RUNTIME = runtime()
CORE_ATTENTION = RUNTIME.core_attention


@dataclass(frozen=True, kw_only=True)
class AttentionName:
    """What layers build attention from: `name` in the file of `home`.

    `outputs` is how many values a layer's forward takes from a call of it.
    """

    home: str
    name: str
    outputs: int


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """A decoder layer class and the model classes that stack it, in the file's order.

    `model` is the file that stacks the layer, `home` the one that defines it, at `file` and
    `line`. `layer_type` is what a configuration calls the layer, where the file has a table of
    types. `attention` is that of all layers which the stacking file knows. `boundary` says
    whether a communicator or boundary of the release moves its tensors, without which attention
    data parallelism is not possible. `model_type` is what the configuration calls the model, where
    the layer's constructor decides by it.
    """

    model: str
    home: str
    cls: str
    file: str
    line: int
    stacks: tuple[str, ...]
    layer_type: str | None
    attention: tuple[AttentionName, ...]
    boundary: bool
    model_type: str | None


class Models:
    """The model files of one source, read once."""

    def __init__(self, files: SourceFiles) -> None:
        self.files = files
        self._classes = Classes(files)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every model file's name, sorted; a dot where it lies in a folder."""
        prefix = MODELS.replace(".", "/") + "/"
        names = (path.removeprefix(prefix) for path in self.files.source.under(prefix))
        return tuple(
            sorted(n.removesuffix(".py").replace("/", ".") for n in names if "__init__" not in n)
        )

    def decoders(self, model: str) -> Iterator[Decoder]:
        """The decoder layers that a model file stacks and that can hold experts."""
        yield from self._stacked(model, self._classes.builds_blocks)

    def asked_for(self, model: str) -> list[Decoder]:
        """The same; of a model that has none, all its layers."""
        return [*self.decoders(model)] or [*self._stacked(model, lambda where, name: True)]

    def _stacked(self, model: str, wanted: Callable[[str, str], bool]) -> Iterator[Decoder]:
        source = self._classes.source(model)
        for name in (n for n in source.binders if self._is_layer(model, n) and wanted(model, n)):
            definition = self._classes.find(model, name)
            stacks = tuple(self._stacks(model, source, name))
            if definition is None or not (stacks or definition.model == model):
                continue
            for model_type in self._model_types(definition):
                yield self._decoder(model, definition, stacks=stacks, model_type=model_type)

    def _decoder(
        self, model: str, definition: Definition, *, stacks: tuple[str, ...], model_type: str | None
    ) -> Decoder:
        source, name = self._classes.source(model), definition.node.name
        lineage = [*self._classes.lineage(definition)]
        read = (self._classes.find(model, n) for n in source.binders if self._is_layer(model, n))
        layers = [layer for layer in read if layer is not None]
        return Decoder(
            model=model,
            home=definition.model,
            cls=name,
            file=definition.source.path,
            line=definition.node.lineno,
            stacks=stacks,
            layer_type=next((key for _, key in _type_tables(source, name)), None),
            attention=tuple(dict.fromkeys(a for layer in layers for a in self._attention(layer))),
            boundary=any(not _boundary_names(c.source).isdisjoint(names(c.node)) for c in lineage),
            model_type=model_type,
        )

    def _attention(self, layer: Definition) -> Iterator[AttentionName]:
        """What the layer builds attention from, inherited constructors' included."""
        forward = self._classes.method(layer, "forward")
        outputs = 1 if forward is None else _attention_outputs(forward)
        for home, constructor in self._classes.constructors(layer):
            for name in sorted(set(_attention(constructor))):
                if name != CORE_ATTENTION and not self._classes.holds_experts(home, name):
                    yield AttentionName(home=home, name=name, outputs=outputs)

    def _is_layer(self, model: str, name: str) -> bool:
        """A layer takes hidden states and more; a whole model takes token ids."""
        definition = self._classes.find(model, name)
        forward = definition and self._classes.method(definition, "forward")
        if not forward:
            return False
        known = parameters(forward)
        in_table = any(_type_tables(self._classes.source(model), name))
        more = forward.args.kwarg is not None or len(known) > 3 or in_table
        return more and "hidden_states" in known and "input_ids" not in known

    def _stacks(self, model: str, source: SourceFile, layer: str) -> Iterator[str]:
        """Classes that name the layer in their bodies and are not heads on top of another."""
        known = {layer, *(name for name, _ in _type_tables(source, layer))}
        wholes = [cls for cls in classes(source) if self._is_whole(Definition(model, source, cls))]
        others = [
            c for c in classes(source) if c not in wholes and not self._is_layer(model, c.name)
        ]
        known |= _parts_that_name(source, known, others)
        for cls in wholes:
            if not cls.name.startswith(layer) and known & set(names(cls)):
                yield cls.name

    def _is_whole(self, definition: Definition) -> bool:
        """A whole model: built from a configuration, takes token ids."""
        constructor = self._classes.method(definition, "__init__")
        forward = self._classes.method(definition, "forward")
        return (
            constructor is not None
            and "config" in parameters(constructor)
            and forward is not None
            and "input_ids" in parameters(forward)
        )

    def _model_types(self, definition: Definition) -> tuple[str | None, ...]:
        """What the constructor, or a function it calls, compares `model_type` with.

        None stands for any other, unless the constructor refuses it.
        """
        found: set[str] = set()
        refuses = False
        for home, constructor in self._classes.constructors(definition):
            source = self._classes.source(home)
            parts: list[ast.AST] = [constructor]
            for name in set(calls(constructor)):
                nodes = (source.statements[index].node for index in source.binders.get(name, ()))
                parts += (node for node in nodes if isinstance(node, ast.FunctionDef))
            for part in parts:
                found |= _compared_types(source, part)
            refuses |= any(
                isinstance(node, ast.Raise) and "model_type" in ast.unparse(node)
                for node in ast.walk(constructor)
            )
        return (*sorted(found),) if refuses else (None, *sorted(found))


def _boundary_names(source: SourceFile) -> set[str]:
    """What the file imports from the modules that move tensors between layers, but questions."""
    return {
        alias.asname or alias.name
        for statement in source.statements
        if isinstance(statement.node, ast.ImportFrom)
        and RUNTIME.boundary.search(statement.node.module or "")
        for alias in statement.node.names
        if not alias.name.startswith(("is_", "enable_"))
    }


def _parts_that_name(
    source: SourceFile, known: set[str], parts: Sequence[ast.ClassDef]
) -> set[str]:
    """The file's functions, and of `parts` the classes, that lead to one of `known`."""
    functions = [s.node for s in source.statements if isinstance(s.node, ast.FunctionDef)]
    nodes: list[ast.FunctionDef | ast.ClassDef] = [*functions, *parts]
    inside = {node.name: {n for part in node.body for n in names(part)} for node in nodes}
    found: set[str] = set()
    while True:
        more = {name for name, reads in inside.items() if reads & (known | found)} - known - found
        if not more:
            return found
        found |= more


def _compared_types(source: SourceFile, part: ast.AST) -> set[str]:
    """Strings that `model_type` is compared with, in place or in a list that has a name."""
    found: set[str] = set()
    for node in ast.walk(part):
        if isinstance(node, ast.Compare) and getattr(node.left, "attr", "") == "model_type":
            for value in node.comparators:
                found |= strings(value)
                for index in source.binders.get(getattr(value, "id", ""), ()):
                    found |= strings(source.statements[index].node)
    return found


def _type_tables(source: SourceFile, layer: str) -> Iterator[tuple[str, str]]:
    """Dictionaries from a layer type's name to its class: the dictionary's name, the type's."""
    for statement in source.statements:
        value = getattr(statement.node, "value", None)
        if statement.defines and isinstance(value, ast.Dict):
            for key, entry in zip(value.keys, value.values, strict=True):
                if isinstance(entry, ast.Name) and entry.id == layer:
                    if isinstance(key, ast.Constant):
                        yield statement.defines, str(key.value)
                    elif isinstance(key, ast.Name):
                        yield statement.defines, key.id


def _attention(constructor: ast.FunctionDef) -> Iterator[str]:
    """Classes assigned to attributes whose names all say that they are attention."""
    built: dict[str, list[str]] = {}
    for node in ast.walk(constructor):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            target = node.targets[0]
            for name in calls(node.value):
                if isinstance(target, ast.Attribute) and name[0].isupper():
                    built.setdefault(name, []).append(target.attr)
    for name, attributes in built.items():
        if all(_ATTENTION.search(attribute) for attribute in attributes):
            yield name


def _attention_outputs(forward: ast.FunctionDef) -> int:
    """How many values the layer unpacks from what attention returns."""
    for node in ast.walk(forward):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            function, target = node.value.func, node.targets[0]
            if (
                isinstance(function, ast.Attribute)
                and isinstance(function.value, ast.Name)
                and function.value.id == "self"
                and _ATTENTION.search(function.attr)
            ):
                return len(target.elts) if isinstance(target, ast.Tuple) else 1
    return 1
