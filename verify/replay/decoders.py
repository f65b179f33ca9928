"""Which classes of a source are decoder layers with a mixture-of-experts block, found by reading.

A block is a class whose constructor builds expert layers; a decoder layer is a class whose
constructor builds a block. Both are followed through inheritance and through imports between
model files, never by their names.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from verify.replay.statements import SourceFile
from verify.replay.tree import SourceFiles

_MODELS = "sglang.srt.models"
_EXPERTS = re.compile(r"^(get_moe_impl_class|FusedMoE|EPMoE|DeepEPMoE|\w*FusedMoE)$")
# norms are named after what they precede
_ATTENTION = re.compile(r"^(?!.*norm).*(attn|attention|mixer|mamba|short_conv|^mix$)")

_BOUNDARY = re.compile(r"layers\.(communicator|layer_boundary)|boundary$")


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """A decoder layer class and the model classes that stack it, in the file's order.

    `layer_type` is what a configuration calls the layer, where the file has a table of types.
    `attention` are the names that the layer's constructor builds attention from, and
    `attention_outputs` how many values its forward takes from a call of one. `boundary` says
    whether a communicator or boundary of the release moves its tensors, without which attention
    data parallelism is not possible.
    """

    model: str
    cls: str
    file: str
    line: int
    stacks: tuple[str, ...]
    layer_type: str | None
    attention: tuple[str, ...]
    attention_outputs: int
    boundary: bool


class Models:
    """The model files of one source, read once."""

    def __init__(self, files: SourceFiles) -> None:
        self._files = files
        self._blocks: dict[tuple[str, str], bool] = {}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every model file's name, sorted."""
        prefix = _MODELS.replace(".", "/") + "/"
        names = (path.removeprefix(prefix) for path in self._files.source.under(prefix))
        return tuple(
            sorted(n.removesuffix(".py") for n in names if "/" not in n and n != "__init__.py")
        )

    def decoders(self, model: str) -> Iterator[Decoder]:
        """The decoder layers that a model file defines and that can hold experts."""
        source = self._source(model)
        for cls in _classes(source):
            constructor = _method(cls, "__init__")
            forward = _method(cls, "forward")
            if constructor is None or forward is None or not _is_layer(forward):
                continue
            built = set(_called(constructor))
            if not any(self._is_block(model, name) for name in built):
                continue
            yield Decoder(
                model=model,
                cls=cls.name,
                file=source.path,
                line=cls.lineno,
                stacks=tuple(_stacks(source, cls.name)),
                layer_type=next((key for _, key in _type_tables(source, cls.name)), None),
                attention=tuple(
                    name
                    for name in sorted(set(_attention(constructor)))
                    if not self._is_block(model, name)
                ),
                attention_outputs=_attention_outputs(forward),
                boundary=not _boundary_names(source).isdisjoint(_names(cls)),
            )

    def _source(self, model: str) -> SourceFile:
        source = self._files.get(f"{_MODELS}.{model}")
        if source is None:
            raise KeyError(model)
        return source

    def _is_block(self, model: str, name: str) -> bool:
        """Whether `name`, as `model` reads it, is a class whose constructor builds experts."""
        key = (model, name)
        if key not in self._blocks:
            self._blocks[key] = False
            self._blocks[key] = self._reads_as_block(model, name)
        return self._blocks[key]

    def _reads_as_block(self, model: str, name: str) -> bool:
        source = self._source(model)
        for index in source.binders.get(name, ()):
            node = source.statements[index].node
            if isinstance(node, ast.ClassDef):
                constructor = _method(node, "__init__")
                if constructor is not None and any(
                    _EXPERTS.match(called) for called in _names(constructor)
                ):
                    return True
                return constructor is None and any(
                    self._is_block(model, base.id)
                    for base in node.bases
                    if isinstance(base, ast.Name)
                )
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(_MODELS + "."):
                other = (node.module or "").removeprefix(_MODELS + ".")
                original = next(a.name for a in node.names if (a.asname or a.name) == name)
                if other in self.names:
                    return self._is_block(other, original)
        return False


def _classes(source: SourceFile) -> Iterator[ast.ClassDef]:
    for statement in source.statements:
        if isinstance(statement.node, ast.ClassDef):
            yield statement.node


def _boundary_names(source: SourceFile) -> set[str]:
    """What the file imports from the modules that move tensors between layers."""
    return {
        alias.asname or alias.name
        for statement in source.statements
        if isinstance(statement.node, ast.ImportFrom)
        and _BOUNDARY.search(statement.node.module or "")
        for alias in statement.node.names
    }


def _stacks(source: SourceFile, layer: str) -> Iterator[str]:
    """Classes that name the layer in their bodies and are not heads on top of another."""
    known = {layer, *(name for name, _ in _type_tables(source, layer))}
    for cls in _classes(source):
        if cls.name != layer and not cls.name.startswith(layer) and known & set(_names(cls)):
            constructor = _method(cls, "__init__")
            if constructor is not None and "config" in _parameters(constructor):
                yield cls.name


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


def _method(cls: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    for node in cls.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    return None


def _is_layer(forward: ast.FunctionDef) -> bool:
    """A layer takes positions and hidden states; a whole model takes token ids."""
    names = _parameters(forward)
    return "hidden_states" in names and "input_ids" not in names and len(names) > 3


def _parameters(function: ast.FunctionDef) -> set[str]:
    return {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}


def _called(function: ast.AST) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def _names(function: ast.AST) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Name):
            yield node.id


def _attention(constructor: ast.FunctionDef) -> Iterator[str]:
    """Classes assigned to an attribute whose name says that it is attention."""
    for node in ast.walk(constructor):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
            continue
        target = node.targets[0]
        if isinstance(target, ast.Attribute) and _ATTENTION.search(target.attr):
            yield from (name for name in _called(node.value) if name[0].isupper())


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
