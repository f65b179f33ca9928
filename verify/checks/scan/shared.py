"""Shared decision code that no longer does what the scan takes it to do.

The layers are judged by what their communicator, their boundary and attention data parallelism say
they do. Whether they do it is read here: every way through each of those functions.
"""

import ast
import re
from collections.abc import Iterator

from verify.checks.scan.paths import TooManyWaysError, Way, ways
from verify.interpreter.index import Class, Function, Index, UnreadableError
from verify.interpreter.library import Duty
from verify.report.report import Finding

ROW = "0000"
LOST, DOUBLE, UNASKED = "lost-sum", "reduced-twice", "replicated-addend"


def unkept(index: Index) -> Iterator[Finding]:
    """A finding for each line on which a function leaves a duty undone, or does it twice.

    A function with more ways than are followed is said to be unread: `index.unread`.
    """
    seen: set[tuple[str, int, str]] = set()
    for duty in index.library.duties:
        found = _function(index, duty)
        if found is None:
            continue
        try:
            broken = tuple(_broken(found, duty))
        except TooManyWaysError:
            index.unread.setdefault(
                f"{duty.file} {duty.function}",
                f"{duty.file}:{found.lineno}: {duty.function} has more ways than are followed",
            )
            continue
        for rule, line, message in broken:
            if (duty.file, line, rule) not in seen:
                seen.add((duty.file, line, rule))
                yield _finding(duty, rule, line, message)


def _function(index: Index, duty: Duty) -> ast.FunctionDef | None:
    module = index.module(duty.file)
    if module is None or (duty.implies and duty.implies[0] not in module.text):
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


def _broken(function: ast.FunctionDef, duty: Duty) -> Iterator[tuple[str, int, str]]:
    """Rule, line and what happens, for each way that leaves the duty undone.

    Raises `TooManyWaysError`.
    """
    for way in ways(function):
        yield from _unimplied(way, duty)
        if not all(way.holds(text, truth=truth) for text, truth in duty.where):
            continue
        if duty.asks and way.count(duty.asks[:1]) and not _asked(way, duty.asks[1]):
            line = next(call.line for call in way.calls if call.name == duty.asks[0])
            yield (
                UNASKED if duty.optional else LOST,
                line,
                f"{duty.asks[0]} is called where nothing that allows it is asked",
            )
        lines = sorted({call.line for call in way.calls if call.name in duty.calls})
        if way.count(duty.calls) > 1:
            yield DOUBLE, lines[-1], f"one way through {duty.function} sums or moves rows twice"
        excused = any(way.holds(text, truth=truth) for text, truth in duty.unless)
        if duty.calls and not lines and not duty.optional and not excused:
            what = " or ".join(duty.calls[:2])
            yield LOST, way.line, f"one way through {duty.function} makes no call of {what}"


def _unimplied(way: Way, duty: Duty) -> Iterator[tuple[str, int, str]]:
    if duty.implies is None or way.answer is not True:
        return
    text, truth = duty.implies
    if not way.holds(text, truth=truth):
        yield duty.rule, way.line, f"{duty.function} says yes also where {text} is not {truth}"


def _asked(way: Way, words: str) -> bool:
    return any(known and re.search(words, text) for text, known in way.assumed.items())


def _finding(duty: Duty, rule: str, line: int, message: str) -> Finding:
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
    )
