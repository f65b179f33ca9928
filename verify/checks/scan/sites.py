"""Reduction sites by themselves: every collective call and the guard in front of it.

A site's guard is read from its own method, with the flags as the method's parameters (or the
forward context) hand them in; who computes them and who consumes the sum is the business of
`verify.checks.scan.scan`. This is also what `report --source` compares with the oracles.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Literal

from verify.checks.scan.layers import Facts, read_facts, unknown
from verify.engines.sources import reading
from verify.interpreter.index import Class, FunctionNode, Index, Module, UnreadableError, parse
from verify.interpreter.machine import Machine
from verify.interpreter.state import CANNOT_FOLLOW, Frame
from verify.interpreter.values import Instance, Key, Mapped, Place, Routine, Text, Truth, Value
from verify.logic.diagrams import TRUE, Cond, Logic

ENGINE = reading()
LIBRARY = ENGINE.library
FLAGS, FLAG_NAMES = LIBRARY.flags, LIBRARY.carriers
_DIRECT = "|".join(LIBRARY.collectives)
_SKIPS = re.compile(r"should_skip\w*")


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call in the source that sums up over ranks, found by its name."""

    file: str
    line: int
    column: int
    cls: Class | None
    method: FunctionNode
    collective: str

    @property
    def key(self) -> Key:
        """Where it is."""
        return (self.file, self.line, self.column)

    @property
    def mixes_tokens(self) -> bool:
        """Whether it stands in attention or another token mixer."""
        return self.cls is not None and self.cls.has(LIBRARY.attention)


@dataclass(frozen=True, kw_only=True)
class GuardedSite:
    """A site with its guard as truth tables over the four flags (`verify.logic.truth` order).

    `reduces`: rows in which it can reduce, whatever else the guard asks left free; `must`: rows in
    which it reduces for every answer to that, all sizes taken as greater than one.
    """

    file: str
    line: int
    cls: str | None
    method: str
    collective: str
    path: Literal["EP", "TP"]
    guard: str
    reduces: int
    must: int
    accepts: tuple[str, ...]
    passes: tuple[str, ...]
    atoms: tuple[str, ...]

    @property
    def id(self) -> str:
        """`model/Class.method/PATH`."""
        return f"{PurePosixPath(self.file).stem}/{self.cls}.{self.method}/{self.path}"

    @property
    def skips_on(self) -> tuple[str, ...]:
        """The flags that, alone, keep the site from reducing."""
        size = len(FLAGS)
        alone = {flag: 1 << (size - 1 - index) for index, flag in enumerate(FLAGS)}
        return tuple(flag for flag, row in alone.items() if not self.reduces >> row & 1)


def reducing_helpers(index: Index) -> frozenset[str]:
    """Functions under layers/ that run a collective for their caller."""
    found: set[str] = set()
    module = index.module(ENGINE.files.shared)
    texts = {name: piece.text for name, piece in module.pieces.items()} if module else {}
    pattern = re.compile(rf"\b(?:{_DIRECT})\(")
    while True:
        new = {
            name
            for name, text in texts.items()
            if name not in found
            and text.startswith("def")
            and pattern.search(text.partition("\n")[2])
        }
        if not new:
            return frozenset(found)
        found |= new
        pattern = re.compile(rf"\b(?:{_DIRECT}|{'|'.join(sorted(found))})\(")


def find_calls(index: Index) -> tuple[Call, ...]:
    """Every call to a collective or a reducing helper in the model files."""
    names = frozenset(LIBRARY.collectives) | reducing_helpers(index)
    found: list[Call] = []
    for path in index.tree.under(LIBRARY.models):
        module = index.module(path)
        if module is not None and any(name in module.text for name in names):
            try:
                found += _calls_in(module, _named_here(module, names))
            except UnreadableError as error:
                index.unread.setdefault(path, str(error))
    return tuple(sorted(found, key=lambda call: call.key))


def _named_here(module: Module, names: frozenset[str]) -> dict[str, str]:
    """The collectives by the names that the file gives them: it may import one under another."""
    imported = {here: original for here, (_, original) in module.imports.items() if original}
    others = {here: original for here, original in imported.items() if original in names}
    return {**{name: name for name in names}, **others}


def _calls_in(module: Module, names: Mapping[str, str]) -> Iterator[Call]:
    mention = _mention(frozenset(names))
    called = {True: set[int](), False: set[int]()}
    line, at = 1, 0
    for match in mention.finditer(module.text):
        line, at = line + module.text.count("\n", at, match.start()), match.start()
        called[match["called"] is not None].add(line)
    ranges = {name: piece.lines for name, piece in module.pieces.items()}
    if called[True].difference(*ranges.values()):
        # outside every class and function: only a comment or a string may be there
        parse(module.text, shown=module.path)
    for name, lines in ranges.items():
        mentioned = [line for line in called[True] | called[False] if line in lines]
        definition = module.lookup(name) if mentioned else None
        if isinstance(definition, Class):
            # all of them, so that a class that is not Python as a whole says so
            for method in definition.methods.values():
                if any(method.lineno <= line <= (method.end_lineno or line) for line in mentioned):
                    yield from _calls_of(module, definition, method, names)
        elif definition is not None and isinstance(
            definition.node, ast.FunctionDef | ast.AsyncFunctionDef
        ):
            yield from _calls_of(module, None, definition.node, names)


@cache
def _mention(names: frozenset[str]) -> re.Pattern[str]:
    return re.compile(rf"(?:{'|'.join(sorted(names))})(?P<called>\()?")


def _calls_of(
    module: Module, cls: Class | None, method: FunctionNode, names: Mapping[str, str]
) -> Iterator[Call]:
    for node in ast.walk(method):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            called = node.func.id if isinstance(node.func, ast.Name) else called
            if called in names:
                yield Call(
                    file=module.path,
                    line=node.lineno,
                    column=node.col_offset,
                    cls=cls,
                    method=method,
                    collective=names[called],
                )


@dataclass(frozen=True, eq=False)
class Guard:
    """When a site reduces, as its own method says."""

    place: Place
    when: Cond
    logic: Logic

    @property
    def flags(self) -> frozenset[str]:
        """The flags it reads."""
        return frozenset(self.logic.support(self.when)) & frozenset(FLAGS)


def read_guards(
    facts: Facts, cls: Class | None, module: Module, method: FunctionNode
) -> dict[Key, Guard]:
    """Run one method by itself; the guard of every site it reaches, by place."""
    state = facts.state(open_flags=True)
    machine = Machine(state)
    state.enter(Frame(module, "<method>", None, TRUE))
    logic = state.logic
    try:
        owner: Value = Text("self")
        if cls is not None:
            owner = Instance(cls)
            init = cls.method("__init__")
            if init is not None:
                machine.call(Routine(init, owner), (), unknown(init))
        state.reductions.clear()
        state.frame.live = TRUE
        _run_method(machine, cls, module, method, owner)
    except CANNOT_FOLLOW as error:
        facts.index.give_up(f"{module.path}:{method.lineno}", method.name, error)
        return {}
    found: dict[Key, Guard] = {}
    for reduction in state.reductions:
        place = reduction.place
        key = place.key
        known = found.get(key)
        when = logic.either(known.when, reduction.when) if known else reduction.when
        found[key] = Guard(known.place if known else place, when, logic)
    return found


def _run_method(
    machine: Machine, cls: Class | None, module: Module, method: FunctionNode, owner: Value
) -> None:
    arguments = method.args
    names = [arg.arg for arg in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    given: dict[str, Value] = {
        name: Truth(machine.logic.atom(FLAG_NAMES[name])) if name in FLAG_NAMES else Text(name)
        for name in names
    }
    frame = Frame(module, method.name, cls, TRUE)
    frame.env.update(given)
    if arguments.kwarg:
        frame.env[arguments.kwarg.arg] = Mapped({})
    if cls is not None and names:
        frame.env[names[0]] = owner
    machine.state.enter(frame)
    machine.run_body(method.body)


def guarded_site(call: Call, guard: Guard) -> GuardedSite:
    """A site with everything its own method says about it."""
    logic, when = guard.logic, guard.when
    sized = when
    for size in ("tp_size", *ENGINE.constraints.parts):
        sized = logic.assume(sized, f"{size} > 1", value=True)
    support = logic.support(when)
    return GuardedSite(
        file=call.file,
        line=call.line,
        cls=call.cls.name if call.cls else None,
        method=call.method.name,
        collective=call.collective,
        path="EP" if guard.place.axes == ("EP",) else "TP",
        guard=logic.text(when),
        reduces=logic.table(when, FLAGS),
        must=logic.table(sized, FLAGS, always=True),
        accepts=_accepted(call.method),
        passes=_passed(call),
        atoms=tuple(name for name in support if name not in FLAGS),
    )


def bare_site(call: Call) -> GuardedSite:
    """A site whose guard could not be read."""
    return GuardedSite(
        file=call.file,
        line=call.line,
        cls=call.cls.name if call.cls else None,
        method=call.method.name,
        collective=call.collective,
        path="TP",
        guard="unresolved",
        reduces=0,
        must=0,
        accepts=(),
        passes=(),
        atoms=(),
    )


def _accepted(method: FunctionNode) -> tuple[str, ...]:
    names = {arg.arg for arg in (*method.args.args, *method.args.kwonlyargs)}
    flags = {FLAG_NAMES[name] for name in names if name in FLAG_NAMES}
    return tuple(flag for flag in FLAGS if flag in flags)


def _passed(call: Call) -> tuple[str, ...]:
    """The keywords that the nearest guard hands to the skip helper."""
    around = [
        node
        for node in ast.walk(call.method)
        if isinstance(node, ast.If) and node.lineno <= call.line <= (node.end_lineno or node.lineno)
    ]
    for node in sorted(around, key=lambda found: -found.lineno):
        for inner in ast.walk(node.test):
            match inner:
                case ast.Call(func=ast.Name(id=name), keywords=keywords) if _SKIPS.fullmatch(name):
                    words = [keyword.arg for keyword in keywords if keyword.arg]
                    return tuple(word for word in words if word != "is_tp_path")
    return ()


def read_sites(index: Index) -> tuple[GuardedSite, ...]:
    """Every guarded reduction of an MLP or MoE output in the source's models, in file order.

    `index.unread` says what could not be followed.
    """
    facts = read_facts(index)
    calls = find_calls(index)
    guards = dict(read_all(facts, calls))
    return tuple(
        guarded_site(call, guard)
        for call in calls
        if (guard := guards[call.key]) is not None and not call.mixes_tokens
    )


def read_all(facts: Facts, calls: tuple[Call, ...]) -> Iterator[tuple[Key, Guard | None]]:
    """Each call's guard; None where its method cannot be followed that far."""
    done: dict[tuple[str, int], dict[Key, Guard]] = {}
    for call in calls:
        where = (call.file, call.method.lineno)
        if where not in done:
            module = facts.index.module(call.file)
            found = read_guards(facts, call.cls, module, call.method) if module else {}
            done[where] = found
        yield call.key, done[where].get(call.key)
