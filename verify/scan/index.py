"""Where every class and function of the source is, found without parsing more than is asked for.

A file is cut into its top-level statements at the lines that start in the first column; a class or
function is parsed when somebody looks at it. Where a cut does not parse (a long string that starts
lines in the first column) the whole file is.
"""

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from verify.errors import VerifyError
from verify.source import SourceTree

# of a name that one file imports from another and that from the next
MAX_HOPS = 8
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef

# patterns for what begins a line begin with the end of the line before: the search can skip to it
_HEAD = re.compile(r"\n(?:async[ \t]+def|def|class)[ \t]+(\w+)")
# a line that begins a new top-level statement: not indented, no comment, no closing bracket
_START = re.compile(r"\n(?=[^\s#)\]}])")
# the word boundary behind the capital lets the search skip to the next capital
_CAPITALISED = re.compile(r"[A-Z](?<!\w[A-Z])\w*")
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
    def node(self) -> ast.ClassDef:
        """The parsed class; raises `UnreadableError`."""
        node = self.module.statement(self.name, self.text, self.line)
        if not isinstance(node, ast.ClassDef):
            raise UnreadableError(f"{self.module.path}:{self.line}: {self.name} is not a class")
        return node

    @cached_property
    def methods(self) -> dict[str, FunctionNode]:
        """The methods defined in this class, the last of a name winning."""
        return {
            item.name: item
            for item in self.node.body
            if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
        }

    @cached_property
    def assigned(self) -> dict[str, ast.expr]:
        """Class attributes."""
        found: dict[str, ast.expr] = {}
        for item in self.node.body:
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
                return Function(ancestor.methods[name], ancestor.module, ancestor)
        return None


@dataclass(frozen=True, eq=False)
class Function:
    """A function or method with the module whose globals it sees."""

    node: FunctionNode | ast.Lambda
    module: "Module"
    owner: Class | None = None

    @property
    def name(self) -> str:
        """Its name; a lambda has none."""
        return getattr(self.node, "name", "<lambda>")


Definition = Class | Function


@dataclass(eq=False)
class Module:
    """One file, cut into top-level statements."""

    path: str
    text: str
    index: "Index"
    _parsed: ast.Module | None = field(default=None, repr=False)
    _resolved: dict[str, Definition | None] = field(default_factory=dict, repr=False)

    @cached_property
    def heads(self) -> dict[str, tuple[str, int]]:
        """Top-level classes and functions: name -> text and first line.

        A class or function ends where the next top-level statement begins. Lines in the first
        column of a long string begin none: in front of them the triple quotes are not paired.
        """
        found: dict[str, tuple[str, int]] = {}
        text = f"\n{self.text}"
        quotes = _Quotes(text)
        line = at = end = 0
        for head in _HEAD.finditer(text):
            start = head.start()
            if start >= end and quotes.paired(start):
                end = next(filter(quotes.paired, _starts(text, head.end())), len(text))
                line, at = line + text.count("\n", at, start), start
                found[head[1]] = (text[start + 1 : end + 1], line + 1)
        return found

    @cached_property
    def imports(self) -> dict[str, tuple[str, str | None]]:
        """Imported name -> dotted module and the name in it (None: the module itself)."""
        found: dict[str, tuple[str, str | None]] = {}
        for match in _IMPORT.finditer(f"\n{self.text}"):
            found.update(self.imported(match["dots"] or "", match["base"] or "", match["names"]))
        return found

    @cached_property
    def files(self) -> "dict[str, Module]":
        """Names that whole files of the source are imported by."""
        found = {
            name: self.index.module_of(".".join(filter(None, imported)))
            for name, imported in self.imports.items()
        }
        return {name: module for name, module in found.items() if module is not None}

    def qualified(self, owner: str, name: str) -> "Definition | None":
        """What `owner.name` means where `owner` is a file of the source that this one imports."""
        return self.files[owner].resolve(name) if owner in self.files else None

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
            if self._parsed is None:
                self._parsed = parse(self.text, shown=self.path)
            for node in self._parsed.body:
                if getattr(node, "name", None) == name and node.lineno == line:
                    return node
            raise

    def lookup(self, name: str) -> Definition | None:
        """A class or function defined at the top level of this file."""
        if name not in self.heads:
            return None
        known = self.index.definitions.get((self.path, name))
        if known is None:
            text, line = self.heads[name]
            if text.startswith("class"):
                known = Class(name, self, text, line)
            else:
                node = self.statement(name, text, line)
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    return None
                known = Function(node, self)
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


def _starts(text: str, at: int) -> Iterator[int]:
    """Where a top-level statement may begin behind `at`."""
    return (match.start() for match in _START.finditer(text, at))


class _Quotes:
    """Counts a text's triple quotes; asked from its beginning to its end."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = self.double = self.single = 0

    def paired(self, end: int) -> bool:
        """Whether every triple quote before `end` has its other one."""
        self.double += self.text.count('"""', self.at, end)
        self.single += self.text.count("'''", self.at, end)
        self.at = end
        return not (self.double % 2 or self.single % 2)


class Index:
    """All files of the source, read and cut when first asked for."""

    def __init__(self, tree: SourceTree) -> None:
        self.tree = tree
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
