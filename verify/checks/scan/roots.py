"""Which classes are layers: they hold what produces a partial sum and hand it on.

Told by structure, never by a class's own name: a layer builds a producer (a class with row-parallel
linear or expert layers, or a collective), has a norm or a consumer of its own, is not a model (does
not build layers), and is not built by another layer.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from verify.engines.sources import reading
from verify.interpreter.index import Class, Index, Module

ENGINE = reading()
MODELS, IS = ENGINE.library.models, ENGINE.structure
_QUALIFIED = re.compile(r"\b(\w+)\.([A-Z]\w*)\(")


def shown_layers(names: Iterable[str]) -> str:
    """The first few layers' names, as a finding has them for its subject."""
    return ", ".join(sorted(names)[:4])


@dataclass(eq=False)
class Roots:
    """The layers, and who builds whom."""

    layers: list[Class] = field(default_factory=list)
    built_by: dict[Class, set[Class]] = field(default_factory=dict)

    def serves_mixers(self, cls: Class | None) -> bool:
        """Whether the class mixes tokens or is built, at any remove, only by classes that do."""
        todo = [cls] if cls else []
        seen: set[Class] = set()
        while todo:
            one = todo.pop()
            if one in seen or mixes_tokens(one):
                continue
            seen.add(one)
            builders = self.built_by.get(one, set())
            if not builders:
                return False
            todo += builders
        return cls is not None


def find_roots(index: Index) -> Roots:
    """Look at every class under models/, by text first."""
    roots = Roots()
    classes: list[Class] = []
    for path in index.tree.under(MODELS):
        module = index.module(path)
        if module is None:
            continue
        for found in map(module.lookup, module.pieces):
            if isinstance(found, Class):
                classes.append(found)
    known: dict[Module, _Names] = {}
    built = {cls: _built(cls, known) for cls in classes}
    candidates = [
        cls
        for cls in classes
        if not cls.mentions(IS.model)
        and cls.has(("def forward",))
        and cls.has((*IS.norm, *IS.consumer))
        and (
            cls.has(IS.consumer)
            or any(inner.has(IS.producer) and not mixes_tokens(inner) for inner in built[cls])
        )
    ]
    chosen = set(candidates)
    models = {cls for cls in candidates if built[cls] & chosen and not cls.mentions(IS.consumer)}
    chosen -= models
    held = {inner for cls in chosen for inner in built[cls] if inner in chosen}
    held -= {cls for cls in held if cls.has(IS.consumer)}
    roots.layers = [cls for cls in candidates if cls in chosen and cls not in held]
    for cls, inner_classes in built.items():
        for inner in inner_classes:
            roots.built_by.setdefault(inner, set()).add(cls)
    return roots


def mixes_tokens(cls: Class) -> bool:
    """Whether the class is attention or another token mixer."""
    return cls.has(ENGINE.library.attention)


@dataclass(frozen=True, eq=False)
class _Names:
    """The names in one file that mean classes of model files, and those that mean model files."""

    classes: dict[str, Class]
    files: frozenset[str]


def _built(cls: Class, known: dict[Module, _Names]) -> set[Class]:
    """The classes of the source that this class's text or an ancestor's names."""
    found: set[Class] = set()
    for ancestor in cls.ancestors:
        module = ancestor.module
        if module not in known:
            known[module] = _names(module)
        names = known[module]
        for name in ancestor.capitalised & names.classes.keys():
            if name not in ancestor.base_names and name != ancestor.name:
                found.add(names.classes[name])
        for owner, name in _QUALIFIED.findall(ancestor.text) if names.files else ():
            inner = module.qualified(owner, name) if owner in names.files else None
            if isinstance(inner, Class):
                found.add(inner)
    return found


def _names(module: Module) -> _Names:
    # no other file hands a model's class on
    imported = {
        name: ".".join(filter(None, (source, original)))
        for name, (source, original) in module.imports.items()
        if ENGINE.files.models in source
    }
    classes: dict[str, Class] = {}
    for name in (*module.pieces, *imported):
        found = module.resolve(name) if name[0].isupper() else None
        if isinstance(found, Class) and found.module.path.startswith(MODELS):
            classes[name] = found
    files = (name for name, dotted in imported.items() if module.index.module_of(dotted))
    return _Names(classes, frozenset(files))
