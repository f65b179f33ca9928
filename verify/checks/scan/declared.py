"""A layer that is declared sparse, or dense, outright, though it builds one or the other MLP."""

import ast
import re
from collections.abc import Iterator

from verify.checks.scan.roots import Roots
from verify.interpreter.index import Class, UnreadableError
from verify.report.report import Finding

RULE = "flag-misbound"
ROW = "0000"
# what a layer says of itself: whose rows it works on
_SAYS = re.compile(r"(?:is_(?:layer_)?)?sparse")


def declared_outright(roots: Roots) -> Iterator[Finding]:
    """A finding for each constant that declares what the layer decides by a condition."""
    seen: set[tuple[str, int]] = set()
    for layer in roots.layers:
        try:
            init = layer.methods.get("__init__")
        except UnreadableError:
            continue  # the layer's own run says so
        if init is None or not _decides(init):
            continue
        for word in _constants(init):
            if (layer.module.path, word.value.lineno) not in seen:
                seen.add((layer.module.path, word.value.lineno))
                yield _finding(layer, word)


def _decides(init: ast.AST) -> bool:
    """Whether one condition chooses between two blocks of one name."""
    for node in ast.walk(init):
        if isinstance(node, ast.If) and node.orelse:
            one, other = _built(node.body), _built(node.orelse)
            if any(name in other and other[name] != made for name, made in one.items()):
                return True
    return False


def _built(body: list[ast.stmt]) -> dict[str, str]:
    return {
        statement.targets[0].attr: ast.unparse(statement.value.func)
        for each in body
        for statement in ast.walk(each)
        if isinstance(statement, ast.Assign)
        and isinstance(statement.targets[0], ast.Attribute)
        and isinstance(statement.value, ast.Call)
        and "mlp" in statement.targets[0].attr
    }


def _constants(init: ast.AST) -> Iterator[ast.keyword]:
    for node in ast.walk(init):
        match node:
            case ast.keyword(arg=str(name), value=ast.Constant(value=bool())) if _SAYS.fullmatch(
                name
            ):
                yield node


def _finding(layer: Class, word: ast.keyword) -> Finding:
    return Finding(
        rule=RULE,
        message=f"{word.arg} is a constant, though the layer builds one MLP or another",
        sums="nobody: its rows are moved, and its sum is made, as another kind of layer needs it",
        fix="declare what the MLP is built by",
        subject=layer.name,
        kind="lost",
        file=layer.module.path,
        line=word.value.lineno,
        cls=layer.name,
        method="__init__",
        row=ROW,
        rows=(ROW,),
    )
