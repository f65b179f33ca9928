"""What a model adds to a layer's output before the next layer has completed its sum.

A layer that fuses returns a partial sum with a mark, which the next layer's norm completes. What a
model adds to it in between is held by every rank in full: added in place it counts once for every
rank, and a sum that is made anew has lost the mark (deepstack: qwen3_vl_moe.py, 0.5.19, 0.5.20).
"""

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from verify.checks.scan.roots import Roots, shown_layers
from verify.interpreter.index import Class, Function, UnreadableError
from verify.report.report import Finding

RULE = "replicated-addend"
ROW = "1000"


def added_between(roots: Roots, fusing: Iterable[Class]) -> Iterator[Finding]:
    """A finding for each place where a model adds to what such a layer returned."""
    places: dict[tuple[str, int], tuple[Function, str, set[str]]] = {}
    for layer in fusing:
        for model in roots.built_by.get(layer, ()):
            try:
                forward = model.method("forward")
                node = forward.node if forward else None
            except UnreadableError:
                continue  # its file is a finding of its own
            if forward is None or not isinstance(node, ast.FunctionDef):
                continue
            for line, text in additions(node):
                key = (forward.module.path, line)
                places.setdefault(key, (forward, text, set()))[2].add(layer.name)
    for (file, line), (forward, text, layers) in sorted(places.items()):
        yield Finding(
            rule=RULE,
            message=(
                "where the layer leaves its sum to the next norm, the model adds "
                f"`{text}` to what the layer returned"
            ),
            sums="the next layer's norm, afterwards, so that it counts once for every rank",
            fix="complete the sum before adding, or add to the residual",
            subject=shown_layers(layers),
            kind="double",
            file=file,
            line=line,
            cls=forward.owner.name if forward.owner else None,
            method=forward.name,
            row=ROW,
            rows=(ROW,),
        )


def additions(forward: ast.FunctionDef) -> list[tuple[int, str]]:
    """Line and addend of each addition, inside a loop over layers, to what a layer returned."""
    found: dict[int, str] = {}
    for loop in ast.walk(forward):
        if isinstance(loop, ast.For):
            _Loop(layers=_layers(loop), found=found).follow(loop.body, set())
    return sorted(found.items())


@dataclass(kw_only=True)
class _Loop:
    """One pass over a loop's body: which names hold what a layer returned, and additions to them.

    `layers` are the expressions that are a layer.
    """

    layers: frozenset[str]
    found: dict[int, str] = field(default_factory=dict)

    def follow(self, body: Sequence[ast.stmt], owed: set[str]) -> set[str]:
        """The names that hold it after `body`."""
        for statement in body:
            owed = self._step(statement, owed)
        return owed

    def _step(self, statement: ast.stmt, owed: set[str]) -> set[str]:
        match statement:
            case ast.If(body=body, orelse=other):
                return self.follow(body, set(owed)) | self.follow(other, set(owed))
            case ast.With(body=body) | ast.Try(body=body):
                return self.follow(body, owed)
            case ast.AugAssign(target=ast.Name(id=name), op=ast.Add(), value=value):
                self._note(name, statement, value, owed)
            case ast.Expr(value=value):
                self._addition(value, owed)
            case ast.Assign(targets=[target], value=value):
                return self._assigned(target, value, owed)
        return owed

    def _assigned(self, target: ast.expr, value: ast.expr, owed: set[str]) -> set[str]:
        names = _names(target)
        if self._is_layer(value):
            # the first is the output; what follows, the residual, is complete
            return owed | set(names[:1])
        if names and names[0] in owed and self._addition(value, owed) == names[0]:
            return owed
        return owed - set(names)

    def _addition(self, value: ast.expr, owed: set[str]) -> str | None:
        """The name that `value` adds to."""
        match value:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=name), attr="add_" | "add"), args=[addend, *_]
            ):
                return self._note(name, value, addend, owed)
            case ast.BinOp(left=ast.Name(id=name), op=ast.Add(), right=addend) if name in owed:
                return self._note(name, value, addend, owed)
            case ast.BinOp(left=addend, op=ast.Add(), right=ast.Name(id=name)):
                return self._note(name, value, addend, owed)
        return None

    def _note(
        self, name: str, place: ast.stmt | ast.expr, addend: ast.expr, owed: set[str]
    ) -> str | None:
        if name not in owed:
            return None
        self.found.setdefault(place.lineno, ast.unparse(addend)[:60])
        return name

    def _is_layer(self, value: ast.expr) -> bool:
        return isinstance(value, ast.Call) and ast.unparse(value.func) in self.layers


def _layers(loop: ast.For) -> frozenset[str]:
    """What may be a layer: the loop's own names, and what is taken out of a list of the model's.

    `layer` in `for i, layer in enumerate(self.layers)`, or after `layer = self.layers[i]`.
    """
    words = set(_names(loop.target))
    for node in ast.walk(loop):
        if isinstance(node, ast.Assign) and _is_element(node.value):
            words |= {name for target in node.targets for name in _names(target)}
        elif _is_element(node):
            words.add(ast.unparse(node))
    return frozenset(words)


def _is_element(node: ast.AST) -> bool:
    return isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute)


def _names(target: ast.expr) -> list[str]:
    if isinstance(target, ast.Name):
        return [target.id]
    inner = target.elts if isinstance(target, ast.Tuple) else ()
    return [name for each in inner for name in _names(each)]
