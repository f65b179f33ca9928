"""A vocabulary that is split over the whole tensor-parallel group, whatever the attention group is.

Its sum is over ranks that hold other tokens under attention data parallelism: what comes after is
never reached with right values. Told by the call that builds it.
"""

import ast

from verify.checks.scan.roots import Roots
from verify.checks.scan.server.arguments import Refusal
from verify.engines.sources import reading
from verify.interpreter.index import Class, UnreadableError

EMBEDDING = reading().structure.embedding
_CALL = f"{EMBEDDING}("
# either says over which ranks it is split
_TOLD = frozenset({"enable_tp", "use_attn_tp_group", "parallel_group"})


def whole_vocabulary(roots: Roots, layer: Class) -> Refusal | None:
    """Where every model that stacks a layer splits its vocabulary so; None where one does not.

    Where nothing is seen to build it (a table of layers by kind), the models of its file.
    """
    stacks = roots.built_by.get(layer) or _beside(layer)
    builders = [cls for cls in stacks if cls.has((_CALL,))]
    found = [place for cls in builders for place in (_split_over_all(cls),)]
    if not found or None in found:
        return None
    return min(filter(None, found), key=str)


def _beside(layer: Class) -> list[Class]:
    """The other classes of a layer's file."""
    found = map(layer.module.lookup, layer.module.pieces)
    return [cls for cls in found if isinstance(cls, Class) and cls is not layer]


def _split_over_all(cls: Class) -> Refusal | None:
    for ancestor in cls.ancestors:
        if not ancestor.mentions((_CALL,)):
            continue
        try:
            methods = ancestor.methods
            calls = [
                node
                for name, piece in methods.pieces.items()
                if _CALL in piece.text
                for node in ast.walk(methods[name])
                if isinstance(node, ast.Call) and _name(node.func).endswith(EMBEDDING)
            ]
        except UnreadableError:
            return None
        told = [
            any(word.arg in _TOLD or word.arg is None for word in one.keywords) for one in calls
        ]
        if any(told) or not calls:
            return None
        return Refusal(file=ancestor.module.path, line=calls[0].lineno)
    return None


def _name(called: ast.expr) -> str:
    """The last word of a dotted name."""
    match called:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""
