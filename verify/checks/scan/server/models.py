"""Which models have a layer, under the names by which a server knows them."""

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from verify.checks.scan.roots import Roots
from verify.checks.scan.server.evaluate import assigned
from verify.checks.scan.server.values import UNKNOWN
from verify.interpreter.index import Class, Index

ENTRY = "EntryClass"
_CONFIG = re.compile(r"def __init__\(\s*self,\s*config\s*:\s*[\"']?([\w.]+)")
_TYPE_ASKED = re.compile(r"config\.model_type == ['\"](\w+)['\"]")
_DERIVED = re.compile(r"^class (\w+)\(", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model by its architecture, and by its configuration's type where the source has it.

    `cls` is the class that is offered under that name.
    """

    architecture: str = ""
    model_type: Any = UNKNOWN
    cls: Class | None = field(default=None, compare=False)


def models_of(index: Index, roots: Roots, layer: Class) -> tuple[Model, ...]:
    """The models that build a layer at any remove, sorted by name.

    Where nothing is seen to build it (a table of layers by kind), those that its file offers.
    """
    found: dict[str, Model] = {}
    todo, seen = [layer], {layer}
    while todo:
        cls = todo.pop()
        if cls.name in _entries(cls):
            found[cls.name] = Model(architecture=cls.name, model_type=_type_of(cls), cls=cls)
        for builder in roots.built_by.get(cls, ()):
            if builder not in seen:
                seen.add(builder)
                todo.append(builder)
    if not roots.built_by.get(layer):
        for name in _entries(layer):
            offered = layer.module.lookup(name)
            if isinstance(offered, Class):
                kind = _type_of(offered)
                found[name] = Model(architecture=name, model_type=kind, cls=offered)
    return tuple(found[name] for name in sorted(found))


def _entries(cls: Class) -> frozenset[str]:
    """The classes that a file offers as models."""
    written = assigned(cls.module, ENTRY)
    nodes = written.elts if isinstance(written, ast.List | ast.Tuple) else [written]
    return frozenset(node.id for node in nodes if isinstance(node, ast.Name))


def built_for(layer: Class, conditions: Iterable[str]) -> bool:
    """Whether a layer's own configuration may be of the type that conditions ask for.

    It is the class that the constructor is annotated with, or one derived from it.
    """
    asked = {match[1] for text in conditions for match in (_TYPE_ASKED.fullmatch(text),) if match}
    config = _config_of(layer) if asked else None
    if config is None:
        return True
    folder = config.module.path.rpartition("/")[0]
    types = {_declared(config)}
    for path in config.module.index.tree.under(folder):
        module = config.module.index.module(path)
        for name in _DERIVED.findall(module.text) if module else ():
            one = module.lookup(name) if module else None
            if isinstance(one, Class) and config in one.ancestors:
                types.add(_declared(one))
    return UNKNOWN in types or asked <= types


def _type_of(cls: Class) -> Any:
    """`model_type` of the configuration that a model's constructor is annotated with."""
    config = _config_of(cls)
    return UNKNOWN if config is None else _declared(config)


def _config_of(cls: Class) -> Class | None:
    for ancestor in cls.ancestors:
        match = _CONFIG.search(ancestor.text)
        if match:
            config = ancestor.module.resolve(match[1].rpartition(".")[2])
            return config if isinstance(config, Class) else None
    return None


def _declared(config: Class) -> Any:
    for one in config.ancestors:
        written = one.assigned.get("model_type")
        if isinstance(written, ast.Constant):
            return written.value
    return UNKNOWN
