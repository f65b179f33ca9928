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


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """A decoder layer class and the model classes that stack it, in the file's order.

    `attention` are the names that the layer's constructor builds attention from; `boundary` says
    whether a communicator or boundary of the release moves its tensors, without which attention
    data parallelism is not possible.
    """

    model: str
    cls: str
    file: str
    line: int
    stacks: tuple[str, ...]
    attention: tuple[str, ...]
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
                attention=tuple(
                    name
                    for name in sorted(set(_attention(constructor)))
                    if not self._is_block(model, name)
                ),
                boundary=bool(built & {"LayerCommunicator", "append_stages"}),
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


def _stacks(source: SourceFile, layer: str) -> Iterator[str]:
    """Classes that name the layer in their bodies and are not heads on top of another."""
    for cls in _classes(source):
        if cls.name != layer and not cls.name.startswith(layer) and layer in _names(cls):
            constructor = _method(cls, "__init__")
            if constructor is not None and "config" in {a.arg for a in constructor.args.args}:
                yield cls.name


def _method(cls: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    for node in cls.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    return None


def _is_layer(forward: ast.FunctionDef) -> bool:
    """A layer takes positions and hidden states; a whole model takes token ids."""
    names = {argument.arg for argument in (*forward.args.args, *forward.args.kwonlyargs)}
    return "hidden_states" in names and "input_ids" not in names and len(names) > 3


def _called(function: ast.FunctionDef) -> Iterator[str]:
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
        target, function = node.targets[0], node.value.func
        if (
            isinstance(target, ast.Attribute)
            and _ATTENTION.search(target.attr)
            and isinstance(function, ast.Name)
            and function.id[0].isupper()
        ):
            yield function.id
