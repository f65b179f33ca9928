"""Which models have a layer, under the names by which a server knows them."""

import ast
import re
from dataclasses import dataclass, field
from typing import Any

from verify.checks.scan.roots import Roots
from verify.checks.scan.server.evaluate import assigned
from verify.checks.scan.server.values import UNKNOWN
from verify.interpreter.index import Class, Index

ENTRY = "EntryClass"
_CONFIG = re.compile(r"def __init__\(\s*self,\s*config\s*:\s*[\"']?([\w.]+)")


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


def _type_of(cls: Class) -> Any:
    """`model_type` of the configuration that a model's constructor is annotated with."""
    for ancestor in cls.ancestors:
        match = _CONFIG.search(ancestor.text)
        config = ancestor.module.resolve(match[1].rpartition(".")[2]) if match else None
        for one in config.ancestors if isinstance(config, Class) else ():
            written = one.assigned.get("model_type")
            if isinstance(written, ast.Constant):
                return written.value
        if match:
            break
    return UNKNOWN
