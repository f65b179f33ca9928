"""A lazy loader: a source tree's own definitions, executed one by one and only when asked for.

Nothing here goes through Python's import system, and no module of the tree ever runs as a whole:
a name that code reads is looked up in its file, and the top-level statements that bind it are
executed there, unchanged. Two trees share compiled statements and nothing else, so that each
in-process rank has its own module globals.
"""

import ast
import builtins
import importlib
import sys
import typing
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import PurePosixPath
from types import ModuleType
from typing import Any

from verify.emulator.standin import StandIn, loading
from verify.emulator.statements import SourceFile, Statement, names_in, read_source
from verify.source.source import SourceTree

# executed as they are; every other package outside the tree becomes a stand-in
REAL_PACKAGES = frozenset({"torch", "numpy", "typing_extensions", "packaging", "msgspec"})
_STDLIB = frozenset(sys.stdlib_module_names)


class SourceFiles:
    """The parsed files of a source; each is read once a process."""

    def __init__(self, source: SourceTree) -> None:
        self.source = source
        self._paths = frozenset(source.paths)
        self._folders = frozenset(
            str(folder) for path in source.paths for folder in PurePosixPath(path).parents
        )
        self._files: dict[str, SourceFile | None] = {}

    def get(self, module: str) -> SourceFile | None:
        """The file of a module's dotted name; None where the source has none."""
        if module not in self._files:
            base = module.replace(".", "/")
            paths = (f"{base}/__init__.py", f"{base}.py")
            found = next((path for path in paths if path in self._paths), None)
            self._files[module] = read_source(found, self.source.read(found)) if found else None
        return self._files[module]

    def modules(self, package: str) -> list[str]:
        """The modules right inside a package, by their dotted names."""
        folder = f"{package.replace('.', '/')}/"
        names = (path.removesuffix(".py") for path in self._paths if path.endswith(".py"))
        return sorted(
            name.replace("/", ".")
            for name in names
            if name.startswith(folder) and "/" not in name.removeprefix(folder)
        )

    def is_package(self, module: str) -> bool:
        """Whether the module is a folder, with or without an `__init__.py`."""
        return module.replace(".", "/") in self._folders

    def has(self, module: str) -> bool:
        """Whether the source has the module."""
        return self.is_package(module) or self.get(module) is not None


class Tree:
    """One rank's instance of a source tree.

    `primitives` maps a definition's name (`function`, `Class`, `Class.method`, where `*` in the
    class stands for anything) or the dotted path of something outside the tree to what stands in
    its place. `absent` are packages whose import
    fails. `replaced` collects what was replaced (where -> by what), `loaded` what was executed.
    """

    def __init__(
        self,
        files: SourceFiles,
        *,
        primitives: Mapping[str, Any],
        absent: frozenset[str] = frozenset(),
    ) -> None:
        self.files = files
        package = files.source.package
        self.package = package.name
        self._root = f"{package.name}.{package.inside}"
        self.primitives = primitives
        self.absent = absent
        self.replaced: dict[str, str] = {}
        self.loaded: set[tuple[str, int]] = set()
        self._modules: dict[str, Namespace] = {}
        self._named: set[Any] = set()
        self._methods = _methods_of(primitives)
        # the standard library's two doors to modules by name
        self._standard = {
            "typing": _changed(typing, get_type_hints=self.type_hints),
            "importlib": _changed(importlib, import_module=self._import_module),
        }
        self.builtins = {**vars(builtins), "__import__": self._import}

    def module(self, name: str) -> "Namespace":
        """The namespace of a module of the tree; raises ModuleNotFoundError as an import would."""
        if name not in self._modules:
            source = self.files.get(name)
            if not self.files.has(name):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            self._modules[name] = Namespace(self, name, source)
        return self._modules[name]

    def outside(self, path: str) -> Any:
        """A package, or something in one, that is not part of the tree."""
        if path in self.primitives:
            self.replaced[path] = "ours"
            return self.primitives[path]
        self.replaced.setdefault(path, "stand-in")
        return _OutsideModule(path, self)

    def type_hints(self, owner: Any, *args: Any, **options: Any) -> Any:
        """`typing.get_type_hints` for something of this tree, whose names load when asked for."""
        for cls in getattr(owner, "__mro__", (owner,)):
            name = getattr(cls, "__module__", "")
            if cls in self._named:
                continue
            self._named.add(cls)
            if name.partition(".")[0] != self.package or name not in self._modules:
                continue
            for annotation in vars(cls).get("__annotations__", {}).values():
                for needed in names_in(annotation) if isinstance(annotation, str) else ():
                    if self._modules[name].binds(needed):
                        vars(sys.modules[name])[needed] = self._modules[name][needed]
        return typing.get_type_hints(owner, *args, **options)

    def methods(self, class_name: str) -> Mapping[str, Any]:
        """The primitives that replace single methods of a class."""
        found: dict[str, Any] = {}
        for pattern in _matching(class_name, tuple(self._methods)):
            found |= self._methods[pattern]
        return found

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: tuple[str, ...] | None = (),
        level: int = 0,
    ) -> Any:
        if level:
            base = str((globals or {})["__package__"]).split(".")
            name = ".".join([*base[: len(base) - level + 1], *([name] if name else [])])
        top = name.split(".", maxsplit=1)[0]
        if top == self.package and (self.files.has(name) or name.startswith(self._root)):
            return self.module(name if fromlist else top).proxy
        if top in self.absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name in self._standard:
            return self._standard[name]
        if top in _STDLIB or top in REAL_PACKAGES:
            return builtins.__import__(name, None, None, fromlist or (), 0)
        return self.outside(name if fromlist else top)

    def _import_module(self, name: str, package: str | None = None) -> Any:
        level = len(name) - len(name.lstrip("."))
        return self._import(name[level:], {"__package__": package}, None, ("*",), level)


class Namespace(dict[str, Any]):
    """A module's globals, filled as names are read."""

    def __init__(self, tree: Tree, name: str, source: SourceFile | None) -> None:
        is_package = tree.files.is_package(name)
        super().__init__(
            __name__=name,
            __package__=name if is_package else name.rpartition(".")[0],
            __file__=source.path if source else None,
            __builtins__=tree.builtins,
        )
        self.tree = tree
        self.proxy = _ModuleProxy(self)
        # dataclasses and structs look their own module up there, and what marks no field
        placeholder = sys.modules.setdefault(name, ModuleType(name))
        vars(placeholder).setdefault("ClassVar", typing.ClassVar)
        self._source = source
        self._done: set[int] = set()
        self._put: dict[str, Any] = {}

    def put(self, name: str, value: Any) -> None:
        """Bind `name` for good: no statement of the file that runs later binds it again."""
        self[name] = self._put[name] = value

    def __missing__(self, name: str) -> Any:
        if self._source is not None and name in self._source.binders:
            for index in self._source.binders[name]:
                self._execute(index, wanted=name)
            if name in self:
                return self[name]
        for module in self._star_modules():
            if module.binds(name):
                self[name] = module[name]
                return self[name]
        if name in self.tree.builtins:
            # kept: code looks for `len` and `isinstance` here before it looks among the builtins
            self[name] = self.tree.builtins[name]
            return self[name]
        raise KeyError(name)

    def binds(self, name: str) -> bool:
        """Whether a top-level statement, here or behind a star import, binds `name`."""
        if self._source is not None and name in self._source.binders:
            return True
        return any(module.binds(name) for module in self._star_modules())

    def _star_modules(self) -> list["Namespace"]:
        if self._source is None:
            return []
        found = []
        for level, name in self._source.star_imports:
            base = str(self["__package__"]).split(".") if level else []
            parts = base[: len(base) - level + 1] if level else []
            target = ".".join([*parts, *([name] if name else [])])
            if target.split(".", maxsplit=1)[0] == self.tree.package:
                found.append(self.tree.module(target))
        return found

    def _execute(self, index: int, *, wanted: str) -> None:
        if index in self._done or self._source is None:
            return
        self._done.add(index)
        statement = self._source.statements[index]
        node = statement.node
        name = statement.defines
        if name in self.tree.primitives:
            self[name] = self.tree.primitives[name]
            self._note(name, statement, "ours")
            return
        for needed in statement.needs:
            if needed not in self and self.binds(needed):
                self.__missing__(needed)
        try:
            with loading():
                exec(statement.code, self)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            self[wanted] = StandIn(f"{self['__name__']}.{wanted}", why=why)
            self._note(wanted, statement, f"stand-in: {why}")
            return
        self.update(self._put)
        self.tree.loaded.add((self._source.path, node.lineno))
        if isinstance(node, ast.ClassDef):
            for method, replacement in self.tree.methods(name).items():
                setattr(self[name], method, replacement)
                self._note(f"{name}.{method}", statement, "ours")

    def _note(self, name: str, statement: Statement, what: str) -> None:
        self.tree.replaced[f"{statement.path}:{statement.node.lineno} {name}"] = what


class _ModuleProxy(ModuleType):
    """What `import` returns for a module of the tree: attributes are the namespace's names."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(str(namespace["__name__"]))
        self.__dict__["_namespace"] = namespace
        self.__dict__["__path__"] = []

    def __getattr__(self, name: str) -> Any:
        namespace: Namespace = self.__dict__["_namespace"]
        try:
            return namespace[name]
        except KeyError:
            pass
        try:
            return namespace.tree.module(f"{namespace['__name__']}.{name}").proxy
        except ModuleNotFoundError:
            if namespace.binds("__getattr__") and not name.startswith("__"):
                return namespace["__getattr__"](name)
            raise AttributeError(f"module {namespace['__name__']} has no {name}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__["_namespace"][name] = value


class _OutsideModule(StandIn):
    """A stand-in whose attributes may be primitives of ours."""

    def __init__(self, path: str, tree: Tree) -> None:
        super().__init__(path)
        self.__dict__["_tree"] = tree
        self.__dict__["__path__"] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return self._tree.outside(f"{self._path}.{name}")


@cache
def _matching(class_name: str, patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Those that the name matches; every rank of every server asks the same."""
    return tuple(pattern for pattern in patterns if fnmatchcase(class_name, pattern))


def _methods_of(primitives: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    methods: dict[str, dict[str, Any]] = {}
    for path, value in primitives.items():
        owner, _, method = path.rpartition(".")
        if owner[:1].isupper() or owner[:1] == "*":
            methods.setdefault(owner, {})[method] = value
    return methods


def _changed(module: ModuleType, **values: Any) -> ModuleType:
    copy = ModuleType(module.__name__)
    vars(copy).update(vars(module), **values)
    return copy
