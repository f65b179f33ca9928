"""Environment variables that a case needs: what the source reads, against the default it declares.

A source reads one by what declares it, or by a helper's call that names it with its default.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from verify.engines.sources import reading
from verify.interpreter.index import Index

FILES = reading().files
READS = FILES.reads
_TRUE = ("true", "1")


def variables(index: Index, conditions: Iterable[str]) -> tuple[str, ...]:
    """What must be set for these conditions to hold, as a shell has it: `NAME=1`.

    A variable whose default is not read is set as well: nothing says that it is so by itself.
    """
    return tuple(sorted(set(_set(index, conditions))))


def _set(index: Index, conditions: Iterable[str]) -> Iterator[str]:
    for condition in conditions:
        read = READS.fullmatch(condition)
        if read is None:
            continue
        wanted = not read["opposite"]
        name = read["declared"] or read["named"]
        default = (
            _declared(index, name) if read["declared"] else (read["default"] or "").lower() in _TRUE
        )
        if default != wanted:
            yield f"{name}={int(wanted)}"


def _declared(index: Index, name: str) -> bool | None:
    """The default that a variable is declared with; None where it is not a plain one."""
    default = defaults(index).get(name)
    return None if default is None else bool(default)


@lru_cache(maxsize=8)
def defaults(index: Index) -> Mapping[str, int]:
    """The variables that the source declares, with their defaults: numbers, true and false."""
    module = index.module(FILES.environment)
    found = FILES.declares.finditer(module.text) if module else ()
    return {one["name"]: ast.literal_eval(one["default"]) for one in found}
