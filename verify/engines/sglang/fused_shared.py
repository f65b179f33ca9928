"""Shared experts that are fused into the routed ones, of which every expert-parallel rank has one.

Read from the expert layer's constructor: what it is handed is added to a number of routed experts
that it has divided by the size of the expert-parallel group.
"""

import ast
from functools import lru_cache

from verify.engines.sglang.vocabulary import EXPERT_LAYERS, LAYERS
from verify.interpreter.index import Class, Index

EP_SIZE = "ep_size"


@lru_cache(maxsize=1)
def on_every_rank(index: Index) -> str | None:
    """The argument that says how many there are; None where there are none or they are split."""
    for path in index.tree.under(f"{LAYERS}moe/"):
        module = index.module(path)
        for name in EXPERT_LAYERS if module else ():
            cls = module.lookup(name) if module else None
            init = cls.methods.get("__init__") if isinstance(cls, Class) else None
            found = _added_to_a_share(init) if init is not None else None
            if found is not None:
                return found
    return None


def _added_to_a_share(init: ast.FunctionDef | ast.AsyncFunctionDef) -> str | None:
    """The argument that is added to what was divided by the size of the group."""
    shares: set[str] = set()
    for node in ast.walk(init):
        if isinstance(node, ast.Assign) and _divides(node.value):
            shares |= {ast.unparse(target) for target in node.targets}
    handed = {argument.arg for argument in (*init.args.args, *init.args.kwonlyargs)}
    for node in ast.walk(init):
        match node:
            case ast.BinOp(left=left, op=ast.Add(), right=ast.Name(id=name)) if name in handed:
                if ast.unparse(left) in shares:
                    return name
    return None


def _divides(value: ast.expr) -> bool:
    match value:
        case ast.BinOp(op=ast.FloorDiv(), right=size):
            return EP_SIZE in ast.unparse(size)
    return False
