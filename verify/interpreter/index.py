"""Where every class and function of the source is, found without parsing more than is asked for.

A file is cut into its top-level statements at the lines that start in the first column; a class or
function is parsed when somebody looks at it. Where a cut does not parse (a long string that starts
lines in the first column) the whole file is.
"""

import ast
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from verify.errors import VerifyError
from verify.interpreter.cut import Piece
from verify.interpreter.cut import definitions as cut_definitions
from verify.interpreter.cut import methods as cut_methods
from verify.interpreter.library import Library
from verify.source.source import SourceTree

# of a name that one file imports from another and that from the next
MAX_HOPS = 8
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef

# the word boundary behind the capital lets the search skip to the next capital
_CAPITALISED = re.compile(r"[A-Z](?<!\w[A-Z])\w*")
# it begins with the end of the line before: the search can skip to it
_IMPORT = re.compile(
    r"\n(?:from[ \t]+(?P<dots>\.*)(?P<base>[\w.]*)[ \t]+)?import[ \t]+"
    r"(?P<names>\([^)]*\)|[^\n(][^\n]*)"
)
_NOT_A_NAME = re.compile(r"#[^\n]*|[\\()]")


class UnreadableError(Exception):
    """A file or a part of it is not Python that can be parsed; the message says why."""


def parse(text: str, *, shown: str, first_line: int = 1) -> ast.Module:
    """Parse one piece of source; line numbers count from `first_line`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # empty lines before it cost less than to renumber every node
            return ast.parse("\n" * (first_line - 1) + text)
    except SyntaxError as error:
        line = error.lineno or first_line
        raise UnreadableError(f"{shown}:{line}: not Python ({error.msg})") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise UnreadableError(f"{shown}: not Python that can be parsed ({error})") from error


@dataclass(frozen=True, eq=False)
class Class:
    """A class: where it is, what it is written like, its methods once asked for."""

    name: str
    module: "Module"
    text: str
    line: int

    @cached_property
    def methods(self) -> "Methods":
        """The methods defined in this class, the last of a name winning."""
        return Methods(self)

    @cached_property
    def node(self) -> ast.ClassDef:
        """The parsed class; raises `UnreadableError`."""
        return self._class(self.text)

    def _class(self, text: str) -> ast.ClassDef:
        node = self.module.statement(self.name, text, self.line)
        if not isinstance(node, ast.ClassDef):
            raise UnreadableError(f"{self.module.path}:{self.line}: {self.name} is not a class")
        return node

    @cached_property
    def assigned(self) -> dict[str, ast.expr]:
        """Class attributes."""
        found: dict[str, ast.expr] = {}
        for item in self._class(self.methods.rest).body:
            if isinstance(item, ast.Assign):
                for target in item.targets:
                    if isinstance(target, ast.Name):
                        found[target.id] = item.value
            elif (
                isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.value
            ):
                found[item.target.id] = item.value
        return found

    @cached_property
    def annotated(self) -> tuple[str, ...]:
        """The names that its body annotates: what a generated constructor takes, in order."""
        return tuple(
            item.target.id
            for item in self._class(self.methods.rest).body
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        )

    @cached_property
    def ancestors(self) -> "tuple[Class, ...]":
        """This class and every base that is in the source, nearest first; a loop ends."""
        found: list[Class] = []
        todo: list[Class] = [self]
        while todo:
            cls = todo.pop(0)
            if cls not in found:
                found.append(cls)
                todo = [*cls.bases, *todo]
        return tuple(found)

    @cached_property
    def base_names(self) -> tuple[str, ...]:
        """The bases as written, the last part of a dotted name."""
        header = re.match(r"class\s+\w+\s*\(([^)]*)\)", self.text)
        words = header[1].split(",") if header else []
        return tuple(word.strip().rpartition(".")[2] for word in words if word.strip())

    @cached_property
    def bases(self) -> "tuple[Class, ...]":
        """The bases that are in the source."""
        found = (self.module.resolve(name) for name in self.base_names)
        return tuple(base for base in found if isinstance(base, Class))

    def mentions(self, words: tuple[str, ...]) -> bool:
        """Whether its own text has one of the words."""
        known = self._mentions.get(words)
        if known is None:
            known = self._mentions[words] = any(word in self.text for word in words)
        return known

    def has(self, words: tuple[str, ...]) -> bool:
        """Whether its text or an ancestor's has one of the words."""
        return any(ancestor.mentions(words) for ancestor in self.ancestors)

    @cached_property
    def _mentions(self) -> dict[tuple[str, ...], bool]:
        return {}

    @cached_property
    def capitalised(self) -> frozenset[str]:
        """The names in it that classes have."""
        return frozenset(_CAPITALISED.findall(self.text))

    def named(self, name: str) -> bool:
        """Whether this class or an ancestor, in the source or not, has that name."""
        return any(name in (c.name, *c.base_names) for c in self.ancestors)

    def method(self, name: str, *, after: "Class | None" = None) -> "Function | None":
        """The method that a call finds, or, for super(), the next one after class `after`."""
        line = self.ancestors
        if after is not None and after in line:
            line = line[line.index(after) + 1 :]
        for ancestor in line:
            if name in ancestor.methods:
                return Function(name, ancestor.module, ancestor)
        return None


class Methods(Mapping[str, FunctionNode]):
    """The methods of one class by name, each parsed when asked for.

    `pieces` says where they are, `rest` is the class without them.
    """

    def __init__(self, cls: Class) -> None:
        self._cls = cls
        self._parsed: dict[str, FunctionNode] = {}
        cut = cut_methods(Piece(text=cls.text, line=cls.line))
        if cut is None:
            whole = Piece(text=cls.text, line=cls.line)
            cut = dict.fromkeys(self._whole, whole), cls.text
        self.pieces, self.rest = cut

    @cached_property
    def _whole(self) -> dict[str, FunctionNode]:
        functions = (item for item in self._cls.node.body if isinstance(item, FunctionNode))
        return {function.name: function for function in functions}

    def __getitem__(self, name: str) -> FunctionNode:
        if name not in self._parsed:
            self._parsed[name] = self._parse(name, self.pieces[name])
        return self._parsed[name]

    def _parse(self, name: str, piece: Piece) -> FunctionNode:
        path = self._cls.module.path
        node: ast.AST | None
        try:
            # a class around it, so that nothing changes its column
            tree = parse(f"class _:\n{piece.text}", shown=path, first_line=piece.line - 1)
            node = next(ast.iter_child_nodes(tree.body[0]))
        except UnreadableError:
            node = self._whole.get(name)
        if not isinstance(node, FunctionNode):
            raise UnreadableError(f"{path}:{piece.line}: {name} is no method")
        return node

    def __contains__(self, name: object) -> bool:
        return name in self.pieces

    def __iter__(self) -> Iterator[str]:
        return iter(self.pieces)

    def __len__(self) -> int:
        return len(self.pieces)


@dataclass(frozen=True, eq=False)
class Function:
    """A function or method with the module whose globals it sees.

    `inner` is its node where it is defined inside another one.
    """

    name: str
    module: "Module"
    owner: Class | None = None
    inner: FunctionNode | ast.Lambda | None = None

    @cached_property
    def node(self) -> FunctionNode | ast.Lambda:
        """The parsed function; raises `UnreadableError`."""
        if self.inner is not None:
            return self.inner
        if self.owner is not None:
            return self.owner.methods[self.name]
        piece = self.module.pieces[self.name]
        node = self.module.statement(self.name, piece.text, piece.line)
        if not isinstance(node, FunctionNode):
            raise UnreadableError(f"{self.module.path}:{piece.line}: {self.name} is no function")
        return node


Definition = Class | Function


@dataclass(eq=False)
class Module:
    """One file, cut into top-level statements."""

    path: str
    text: str
    index: "Index"
    _resolved: dict[str, Definition | None] = field(default_factory=dict, repr=False)
    _files: "dict[str, Module | None]" = field(default_factory=dict, repr=False)

    @cached_property
    def pieces(self) -> dict[str, Piece]:
        """The text of every top-level class and function, by name."""
        cut = cut_definitions(self.text)
        if cut is not None:
            return cut
        try:
            body = self._whole.body
        except UnreadableError as error:
            self.index.unread.setdefault(self.path, str(error))
            return {}
        definitions = (node for node in body if isinstance(node, ast.ClassDef | FunctionNode))
        return {
            node.name: Piece(text=ast.get_source_segment(self.text, node) or "", line=node.lineno)
            for node in definitions
        }

    @cached_property
    def _whole(self) -> ast.Module:
        return parse(self.text, shown=self.path)

    @cached_property
    def imports(self) -> dict[str, tuple[str, str | None]]:
        """Imported name -> dotted module and the name in it (None: the module itself)."""
        found: dict[str, tuple[str, str | None]] = {}
        for match in _IMPORT.finditer(f"\n{self.text}"):
            found.update(self.imported(match["dots"] or "", match["base"] or "", match["names"]))
        return found

    def qualified(self, owner: str, name: str) -> "Definition | None":
        """What `owner.name` means where `owner` is a file of the source that this one imports."""
        if owner not in self._files:
            imported = filter(None, self.imports.get(owner, ()))
            self._files[owner] = self.index.module_of(".".join(imported))
        module = self._files[owner]
        return module.resolve(name) if module else None

    def imported(self, dots: str, base: str, names: str) -> dict[str, tuple[str, str | None]]:
        """What one import statement binds; `dots` and `base` are what follows `from`."""
        package = self.path.removesuffix(".py").split("/")
        above = package[: len(package) - len(dots)] if dots else []
        source = ".".join([*above, *([base] if base else [])])
        found: dict[str, tuple[str, str | None]] = {}
        if "(" in names or "#" in names or "\\" in names:
            names = _NOT_A_NAME.sub("", names)
        for part in names.split(","):
            words = part.split()
            if words:
                bound = words[-1]
                found[bound] = (source, words[0]) if source else (words[0], None)
        return found

    def statement(self, name: str, text: str, line: int) -> ast.stmt:
        """One top-level class or function, parsed."""
        try:
            return parse(text, shown=self.path, first_line=line).body[0]
        except UnreadableError:
            for node in self._whole.body:
                if getattr(node, "name", None) == name and node.lineno == line:
                    return node
            raise

    def lookup(self, name: str) -> Definition | None:
        """A class or function defined at the top level of this file."""
        piece = self.pieces.get(name)
        if piece is None:
            return None
        known = self.index.definitions.get((self.path, name))
        if known is None:
            if piece.text.startswith("class"):
                known = Class(name, self, piece.text, piece.line)
            else:
                known = Function(name, self)
            self.index.definitions[(self.path, name)] = known
        return known

    def resolve(self, name: str, *, hops: int = MAX_HOPS) -> Definition | None:
        """What `name` means here: defined in this file or imported from another of the source."""
        if hops < MAX_HOPS:
            return self._resolve(name, hops)
        try:
            return self._resolved[name]
        except KeyError:
            found = self._resolved[name] = self._resolve(name, hops)
            return found

    def _resolve(self, name: str, hops: int) -> Definition | None:
        found = self.lookup(name)
        if found is not None or hops == 0 or name not in self.imports:
            return found
        dotted, attribute = self.imports[name]
        module = self.index.module_of(dotted)
        if module is None or attribute is None:
            return None
        return module.resolve(attribute, hops=hops - 1)


class Index:
    """All files of the source, read and cut when first asked for, and whose library it is."""

    def __init__(self, tree: SourceTree, library: Library) -> None:
        self.tree = tree
        self.library = library
        self.definitions: dict[tuple[str, str], Definition] = {}
        self.unread: dict[str, str] = {}
        self._paths = frozenset(tree.paths)
        self._modules: dict[str, Module | None] = {}

    def module(self, path: str) -> Module | None:
        """The file at `path`; None where there is none or it is bad, then `unread` says why."""
        if path not in self._paths:
            return None
        if path not in self._modules:
            try:
                self._modules[path] = Module(path, self.tree.read(path), self)
            except VerifyError as error:
                self.unread[path] = str(error)
                self._modules[path] = None
        return self._modules[path]

    def give_up(self, where: str, what: str, error: Exception) -> None:
        """Say that a part of a file was read and cannot be followed."""
        self.unread[f"{where} {what}"] = f"{where}: {what} cannot be followed: {error}"

    def forget(self) -> None:
        """Let go of every file and syntax tree; nothing that was asked for is of use any more.

        Classes, modules and this object hold each other: without it they would all wait for the
        cycle collector, which walks every node of every tree to find that out.
        """
        for definition in self.definitions.values():
            vars(definition).clear()
        for module in self._modules.values():
            if module is not None:
                vars(module).clear()
        vars(self).clear()

    def module_of(self, dotted: str) -> Module | None:
        """The file of a dotted module name, or None where it is not in the source."""
        base = dotted.replace(".", "/")
        for path in (f"{base}.py", f"{base}/__init__.py"):
            if path in self._paths:
                return self.module(path)
        return None
