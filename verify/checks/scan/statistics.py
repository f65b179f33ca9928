"""A norm over columns that are split: its sum of squares is summed over the ranks exactly once.

Each rank has the squares of its own columns. What divides by the number of ranks as well takes them
to be summed.
"""

import ast
import re
from collections.abc import Iterator

from verify.checks.scan.paths import TooManyWaysError, Way, ways
from verify.interpreter.index import Class, Index, Module
from verify.report.report import Finding

LOST, DOUBLE = "lost-sum", "reduced-twice"
ROW = "0000"
_SQUARES = re.compile(r"sum_?sq\w*\(|\.pow\(2\)\.(?:mean|sum)\(")
_MAY_SQUARE = ("sumsq", "sum_sq", ".pow(2).")  # what every such has
_SIZE = r"(?:tp|attn_tp|world)_?(?:size|world)?(?:\(\))?"
# what is divided by the number of ranks, or handed on together with it
_DIVIDED = re.compile(rf"/ (?:\w+\.)*_?{_SIZE}\b")
_APPLIED = re.compile(rf"\w*apply\w*\((?=[^()]*\w*{_SIZE})")
_ALONE = ((rf"{_SIZE} > 1", False), (rf"{_SIZE} == 1", True))


def unsummed_squares(index: Index) -> Iterator[Finding]:
    """A finding for each norm that does not sum its squares, or sums them twice."""
    for path in index.tree.under(index.library.models):
        module = index.module(path)
        if module is None or not any(map(module.text.__contains__, _MAY_SQUARE)):
            continue
        for name in module.pieces:
            cls = module.lookup(name) if _SQUARES.search(module.pieces[name].text) else None
            if isinstance(cls, Class):
                for method, piece in cls.methods.pieces.items():
                    if _SQUARES.search(piece.text):
                        yield from _in(module, cls, method, cls.methods[method])


def _in(module: Module, cls: Class, method: str, function: ast.AST) -> Iterator[Finding]:
    text = ast.unparse(function)
    if not isinstance(function, ast.FunctionDef):
        return
    if not (_DIVIDED.search(text) or _APPLIED.search(text)):
        return
    library = module.index.library
    sums = (*library.collectives, *library.group_methods)
    try:
        found = [_broken(way, way.count(sums)) for way in ways(function)]
    except TooManyWaysError:
        return
    for rule in sorted(set(filter(None, found))):
        twice = rule == DOUBLE
        yield Finding(
            rule=rule,
            message=f"the squares of split columns are summed {'twice' if twice else 'nowhere'}",
            sums="nobody: the norm is that of " + ("too many columns" if twice else "its own"),
            fix="sum them over the ranks that have the columns, once",
            subject=cls.name,
            kind="double" if twice else "lost",
            file=module.path,
            line=function.lineno,
            cls=cls.name,
            method=method,
            row=ROW,
            rows=(ROW,),
        )


def _broken(way: Way, sums: int) -> str | None:
    if sums > 1:
        return DOUBLE
    alone = any(way.holds(pattern, truth=truth) for pattern, truth in _ALONE)
    return None if sums or alone else LOST
