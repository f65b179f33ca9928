"""The steps that are not exact and on which verdicts rest, for reports; docs/interpreter.md."""

from collections import Counter
from collections.abc import Iterable
from typing import TypeAlias

from verify.engines.sources import reading
from verify.interpreter.state import Approximation
from verify.report.render.words import counted
from verify.report.report import Json, TableSection

# each with the layers that take it
Approximated: TypeAlias = tuple[tuple[Approximation, tuple[str, ...]], ...]


def in_order(taken: Iterable[tuple[str, Iterable[Approximation]]]) -> Approximated:
    """The steps in order of kind and place, of layers' names with the steps that each takes."""
    found: dict[Approximation, set[str]] = {}
    for layer, steps in taken:
        for step in steps:
            found.setdefault(step, set()).add(layer)
    return tuple((step, tuple(sorted(found[step]))) for step in sorted(found))


def in_words(approximated: Approximated) -> str:
    """How many steps there are of each kind, for a summary; empty where there is none."""
    kinds = Counter(step.kind for step, _ in approximated).most_common()
    if not kinds:
        return ""
    shown = ", ".join(_counted(number, *kind.split(" ", 1)) for kind, number in kinds)
    total = counted(len(approximated), "approximation")
    return f"; verdicts rest on {total} ({shown}; --all lists them)"


def _counted(number: int, step: str, rest: str) -> str:
    return f"{counted(number, step)} {rest}"


def as_json(approximated: Approximated) -> list[Json]:
    """A line a step."""
    return [
        {"kind": step.kind, "file": step.file, "line": step.line, "layers": list(layers)}
        for step, layers in approximated
    ]


def as_table(approximated: Approximated) -> tuple[TableSection, ...]:
    """A row a step; no table where there is none."""
    rows = tuple(
        (f"{reading().local(step.file)}:{step.line}", step.kind, ", ".join(layers))
        for step, layers in approximated
    )
    table = TableSection(
        title="Steps that are not exact, on which verdicts rest",
        columns=("place", "step", "layers"),
        rows=rows,
        more=True,
    )
    return (table,) if rows else ()
