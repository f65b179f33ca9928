"""Shared decision code that no longer does what the scan takes it to do.

The layers are judged by what their communicator, their boundary and attention data parallelism say
they do. Whether they do it is read here: every way through each of those functions.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from verify.checks.scan.paths import TooManyWaysError, Way, truths, ways
from verify.interpreter.index import Class, Function, Index, UnreadableError
from verify.interpreter.library import Assumed, Duty
from verify.report.report import Finding

ROW = "0000"
CALLED = r"(?:\(\))?"  # a call, or a name that is none
_BEHIND = re.compile(r"\(\?<!\w+\)")
_EITHER = re.compile(r"\(\?:([^()|]*)(?:\|[^()]*)?\)\??")
_MARKS = str.maketrans("", "", "\\^$?")
LOST, DOUBLE, UNASKED = "lost-sum", "reduced-twice", "replicated-addend"

# rule, line, what happens, and the conditions with which it does
Broken: TypeAlias = tuple[str, int, str, tuple[Assumed, ...]]


def unkept(index: Index) -> Iterator[Finding]:
    """A finding for each line on which a function leaves a duty undone, or does it twice.

    A function with more ways than are followed is said to be unread: `index.unread`.
    """
    found: dict[tuple[str, int, str], Finding] = {}
    followed: dict[tuple[str, str | None, str], list[Way]] = {}
    for duty in index.library.duties:
        key = (duty.file, duty.cls, duty.function)
        if key not in followed:
            followed[key] = _ways(index, duty)
        text = _text(index, duty.file)
        if not re.search(duty.knows, text):
            continue
        for way in followed[key]:
            for rule, line, message, case in _broken(way, duty, text):
                one = _finding(duty, rule, line, message, needs=_needs(index, duty, case))
                known = found.setdefault((duty.file, line, rule), one)
                if len(one.needs) < len(known.needs):
                    found[(duty.file, line, rule)] = one
    yield from found.values()


def _text(index: Index, file: str) -> str:
    module = index.module(file)
    return module.text if module else ""


def _ways(index: Index, duty: Duty) -> list[Way]:
    """Those through a duty's function; none where the source has no such function."""
    found = _function(index, duty)
    if found is None:
        return []
    try:
        return ways(found)
    except TooManyWaysError:
        index.unread.setdefault(
            f"{duty.file} {duty.function}",
            f"{duty.file}:{found.lineno}: {duty.function} has more ways than are followed",
        )
        return []


def _function(index: Index, duty: Duty) -> ast.FunctionDef | None:
    module = index.module(duty.file)
    if module is None:
        return None
    try:
        named = module.lookup(duty.cls or duty.function)
        if duty.cls and isinstance(named, Class):
            node: ast.AST | None = named.methods.get(duty.function)
        else:
            node = named.node if isinstance(named, Function) and not duty.cls else None
    except UnreadableError:
        return None  # the scan says so of the whole file
    return node if isinstance(node, ast.FunctionDef) else None


def _broken(way: Way, duty: Duty, text: str) -> Iterator[Broken]:
    """Where a way leaves the duty undone; `text` is the file's."""
    name = duty.function
    if not duty.argument:
        yield from _answers(way, duty, text, f"{name} says")
    calls = [call for call in way.calls if call.name in duty.calls]
    for call in calls:
        if duty.argument and isinstance(call.node, ast.Call):
            for value in (each.value for each in call.node.keywords if each.arg == duty.argument):
                said = f"{call.name} is told {duty.argument}"
                for truth, one in truths(value, way):
                    told = replace(one, answer=truth, line=call.line)
                    yield from _answers(told, duty, text, said)
        for clause in duty.only:
            if not _kept(clause, way):
                message = f"{name} makes the call {call.name} also where not {_shown(clause)}"
                yield duty.rule, call.line, message, _case(way, clause)
        if not re.search(duty.over, ast.unparse(call.node)):
            message = f"{name} calls {call.name} for something else than {duty.over}"
            yield LOST, call.line, message, _case(way)
    if duty.argument:
        return
    if len(calls) > 1 and not duty.again:
        yield DOUBLE, calls[-1].line, f"one way through {name} sums or moves rows twice", _case(way)
    if duty.calls and not calls and not duty.optional and not _kept(duty.unless, way):
        what = " or ".join(duty.calls[:2])
        yield (
            LOST,
            way.line,
            f"one way through {name} makes no call of {what}",
            _case(way, duty.unless),
        )


def _answers(way: Way, duty: Duty, text: str, said: str) -> Iterator[Broken]:
    for clause in duty.yes if way.answer else duty.no if way.answer is False else ():
        if (duty.always or _said_of(clause, text)) and not _kept(clause, way):
            word = "yes" if way.answer else "no"
            message = f"{said} {word} also where not {_shown(clause)}"
            rule = duty.rule if way.answer else duty.denied or duty.rule
            yield rule, way.line, message, _case(way, clause)


def _case(way: Way, clause: Sequence[Assumed] = ()) -> tuple[Assumed, ...]:
    """What a way assumes, and that nothing of a clause holds."""
    return (*way.assumed.items(), *((_plain(pattern), not truth) for pattern, truth in clause))


def _needs(index: Index, duty: Duty, case: Sequence[Assumed]) -> tuple[str, ...]:
    """What a launch, or a layer, must have for the conditions of a case."""
    said = (
        need
        for pattern, truth, need in index.library.needs
        if any(known is truth and re.search(pattern, text) for text, known in case)
    )
    return (*((duty.needs,) if duty.needs else ()), *said)


def _kept(clause: Sequence[Assumed], way: Way) -> bool:
    return any(way.holds(pattern, truth=truth) for pattern, truth in clause)


def _said_of(clause: Sequence[Assumed], text: str) -> bool:
    """Whether the file speaks of it at all: another release may know no such condition."""
    return any(re.search(pattern, text) for pattern, _ in clause)


def _shown(clause: Sequence[Assumed]) -> str:
    """Its conditions as they are written: of what a pattern admits the first."""
    return " or ".join(f"{_plain(pattern)} is {truth}" for pattern, truth in clause)


def _plain(pattern: str) -> str:
    first = _BEHIND.sub("", pattern).replace(CALLED, r"\(\)")
    while _EITHER.search(first):
        first = _EITHER.sub(r"\1", first)
    return first.replace(".*", " ").replace(r"\b", "").translate(_MARKS)


def _finding(duty: Duty, rule: str, line: int, message: str, *, needs: tuple[str, ...]) -> Finding:
    doubled = rule in (DOUBLE, UNASKED)
    return Finding(
        rule=rule,
        message=message,
        sums="every layer that uses it: its ranks count too often"
        if doubled
        else "nobody: every layer that uses it takes the sum as made",
        fix="make the sum, or the move, exactly once on every way",
        subject=duty.function,
        kind="double" if doubled else "lost",
        file=duty.file,
        line=line,
        cls=duty.cls,
        method=duty.function,
        row=ROW,
        rows=(ROW,),
        needs=needs,
    )
