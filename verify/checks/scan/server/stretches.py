"""Stretches of a body: statements one after another that do no more than call and import.

A server's arguments go through a long row of steps, most of which have nothing to do with what is
asked for. Some of them together are followed once, as one call is.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

LEAST, MOST = 3, 8  # statements
_ONLY = (ast.Expr, ast.ImportFrom)


@dataclass(frozen=True, eq=False)
class Stretch:
    """Statements after which control goes on, and the names that they ask for."""

    statements: Sequence[ast.stmt]
    names: tuple[str, ...]


def parts(statements: Sequence[ast.stmt]) -> Iterator[Stretch | Sequence[ast.stmt]]:
    """A body, cut into its stretches and what is between them."""
    for only, group in groupby(statements, lambda one: isinstance(one, _ONLY)):
        run = list(group)
        if not only or len(run) < LEAST:
            yield run
            continue
        for start in range(0, len(run), MOST):
            some = run[start : start + MOST]
            nodes = (node for one in some for node in ast.walk(one))
            names = {node.id: None for node in nodes if isinstance(node, ast.Name)}
            yield Stretch(some, tuple(names))
