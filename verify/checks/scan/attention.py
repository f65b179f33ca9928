"""Attention that sums its own output, in a layer whose communicator sums it again.

A communicator that prepares the MLP takes what attention leaves as a partial sum over attention's
ranks: its output projection must not reduce.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from verify.checks.scan.roots import Roots, mixes_tokens, shown_layers
from verify.engines.sources import reading
from verify.interpreter.index import Class, Function, UnreadableError
from verify.report.report import Finding

RULE = "producer-ignores-consumer"
REDUCES_UNASKED = True  # what a row-parallel layer does that is told nothing
ATTENTION_DP = reading().atoms.attention_dp
# the ranks that it is split over; where it is told of one, nothing is owed
SIZE = "tp_size"
ROW = "0000"

Known = Mapping[str, ast.expr | None]


@dataclass(frozen=True, kw_only=True)
class Projection:
    """A row-parallel layer of attention whose output attention returns; whether it sums it up.

    `needs` is what a checkpoint must say for a layer to have such attention.
    """

    owner: Class
    name: str
    line: int
    reduces: bool | None
    needs: tuple[str, ...] = ()


def summed_by_attention(roots: Roots) -> Iterator[Finding]:
    """A finding for each output projection that sums what a communicator sums as well."""
    places: dict[tuple[str, int], list[tuple[Projection, str]]] = {}
    for layer in roots.layers:
        try:
            if not _prepares(layer):
                continue
            for one in _projections(layer):
                if one.reduces:
                    key = (one.owner.module.path, one.line)
                    places.setdefault(key, []).append((one, layer.name))
        except UnreadableError:
            continue  # the layer's own run says so
    for (file, line), shown in sorted(places.items(), key=lambda place: place[0]):
        one = min((one for one, _ in shown), key=lambda one: len(one.needs))
        yield Finding(
            rule=RULE,
            message=f"attention's output projection {one.name} sums its output",
            sums="the communicator sums it again before the MLP",
            fix="let it leave its sum: the communicator completes it",
            subject=shown_layers({layer for _, layer in shown}),
            kind="double",
            file=file,
            line=line,
            cls=one.owner.name,
            method="__init__",
            row=ROW,
            rows=(ROW,),
            needs=one.needs,
        )


def _prepares(layer: Class) -> bool:
    """Whether it has a communicator that prepares its MLP."""
    communicator, prepares = layer.module.index.library.prepares
    return layer.has((f"{communicator}(",)) and any(
        _last(call.func) == prepares
        for ancestor in layer.ancestors
        for name, piece in ancestor.methods.pieces.items()
        if f".{prepares}(" in piece.text
        for call in _calls(ancestor.methods[name])
    )


def _projections(layer: Class) -> Iterator[Projection]:
    """The output projections of every attention that a layer builds."""
    init = layer.method("__init__")
    if init is None:
        return
    for call in _calls(init.node):
        built = init.module.resolve(call.func.id) if isinstance(call.func, ast.Name) else None
        if isinstance(built, Class) and mixes_tokens(built):
            needs = tuple(_unusual(init.node, call))
            for one in _of(built, built.method("__init__"), {}, call):
                yield replace(one, needs=needs)


def _unusual(init: ast.AST, call: ast.Call) -> Iterator[str]:
    """What a checkpoint must say for a call to be reached, other than the source's own default."""
    nodes = tuple(ast.walk(init))
    made = {
        ast.unparse(node.targets[0]): node.value for node in nodes if isinstance(node, ast.Assign)
    }
    for node in nodes:
        if not isinstance(node, ast.If):
            continue
        for body, holds in ((node.body, True), (node.orelse, False)):
            if any(inner is call for each in body for inner in ast.walk(each)):
                yield from _against_default(
                    made.get(ast.unparse(node.test), node.test), holds=holds
                )


def _against_default(test: ast.expr, *, holds: bool) -> Iterator[str]:
    match test:
        case ast.Compare(
            left=ast.Call(
                func=ast.Name(id="getattr"),
                args=[_, ast.Constant(value=str(name)), ast.Constant(value=default)],
            ),
            ops=[ast.Eq() | ast.NotEq() as sign],
            comparators=[ast.Constant(value=asked)],
        ) if ((default == asked) == isinstance(sign, ast.Eq)) != holds:
            yield f"a checkpoint whose {name} is not {default!r}, as the source takes it to be"


def _of(cls: Class, init: Function | None, known: Known, call: ast.Call) -> Iterator[Projection]:
    """Those that `cls` has when its constructor, or an ancestor's, is called so."""
    if init is None or init.owner is None or not isinstance(init.node, ast.FunctionDef):
        return
    names = _bound(init.node, call, known)
    row_linear, reduces = cls.module.index.library.row_linear
    for statement in ast.walk(init.node):
        match statement:
            case ast.Assign(
                targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)],
                value=ast.Call() as made,
            ) if _last(made.func) == row_linear and _returned(cls, name):
                yield Projection(
                    owner=init.owner,
                    name=name,
                    line=made.lineno,
                    reduces=_reduces(made, reduces, names),
                )
            case ast.Call(
                func=ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr="__init__")
            ):
                base = cls.method("__init__", after=init.owner)
                yield from _of(cls, base, names, statement)


def _reduces(made: ast.Call, argument: str, names: Known) -> bool | None:
    """Whether it sums its output up; None where that cannot be told, or nothing is owed."""
    given = {each.arg: _value(each.value, names) for each in made.keywords}
    match given.get(SIZE):
        case ast.Constant(value=1):
            return None
    if argument not in given:
        return None if None in given else REDUCES_UNASKED
    match given[argument]:
        case ast.Constant(value=bool(answer)):
            return answer
        case ast.UnaryOp(op=ast.Not(), operand=asked) if ast.unparse(asked) == ATTENTION_DP:
            # the row that is judged is one without
            return True
    return None


def _bound(function: ast.FunctionDef, call: ast.Call, known: Known) -> dict[str, ast.expr | None]:
    """Each parameter's constant as the caller gives it or by default, None where it is none."""
    arguments = function.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args)][1:]
    found: dict[str, ast.expr | None] = dict.fromkeys(names)
    count = len(arguments.defaults)
    found |= zip(names[len(names) - count :], arguments.defaults, strict=True)
    only = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    found |= {each.arg: default for each, default in only}
    found |= {name: _value(value, known) for name, value in zip(names, call.args, strict=False)}
    if any(each.arg is None for each in call.keywords):
        return dict.fromkeys(found)
    return found | {e.arg: _value(e.value, known) for e in call.keywords if e.arg in found}


def _value(expression: ast.expr, names: Known) -> ast.expr | None:
    if isinstance(expression, ast.Name):
        return names.get(expression.id)
    return expression


def _returned(cls: Class, name: str) -> bool:
    """Whether a method of the class returns what its layer `name` gives."""
    call = f"self.{name}("
    for ancestor in cls.ancestors:
        for method, piece in ancestor.methods.pieces.items():
            if call in piece.text and _returns(ancestor.methods[method], f"self.{name}"):
                return True
    return False


def _returns(function: ast.AST, called: str) -> bool:
    names: set[str] = set()
    returned: set[str] = set()
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[target], value=value) if _is_call(value, called):
                first = target.elts[0] if isinstance(target, ast.Tuple) else target
                if isinstance(first, ast.Subscript):
                    # what it is handed to be written to
                    return True
                names.add(ast.unparse(first))
            case ast.Return(value=ast.expr() as value):
                if _is_call(value, called):
                    return True
                returned |= {each.id for each in ast.walk(value) if isinstance(each, ast.Name)}
    return bool(names & returned)


def _is_call(value: ast.expr, called: str) -> bool:
    inner = value.value if isinstance(value, ast.Subscript) else value
    return isinstance(inner, ast.Call) and ast.unparse(inner.func) == called


def _calls(function: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(function) if isinstance(node, ast.Call))


def _last(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
