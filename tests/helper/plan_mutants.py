"""Every branch of the plan done wrong, one at a time: who notices?

    python tests/helper/plan_mutants.py [TEXT]

prints a line of JSON for each mutant whose change contains TEXT. A mutant negates a condition,
drops or swaps an operand, turns a comparison, makes a number one larger, or replaces a word that
decides something by another of its kind. Explanations, refusals' words and types are left alone.
"""

import ast
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "helper"
FILES = ("plan.py", "layer.py", "reasons.py")
GROUPS = ("none", "tp", "ep", "moe_tp", "attn_tp")
WORDS = (
    GROUPS,
    ("all", "attention group", "own share"),
    ("every rank", "first rank"),
    ("experts", "dense"),
    ("norm", "fused norm", "stage end", "model end"),
    ("nothing", "own rows", "gather shares"),
    ("in place", "scatter", "dispatch"),
    ("EP", "TP"),
    ("partial", "ep"),
)
TURNED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
UNREAD = ("any_reason", "should_skip_post_experts_all_reduce")
"""Not the plan's: the predicate has tests of its own."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """`file` of the helper with one change: `where` and what it was and became, in one line."""

    file: str
    change: str
    source: str


def mutants() -> Iterator[Mutant]:
    """All of them, in the order of the source; a change that comes again is numbered."""
    seen: Counter[str] = Counter()
    for file in FILES:
        tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
        for name, path in _decisions(tree, file):
            for number in range(len(list(_changes(_at(tree, path))))):
                copy = deepcopy(tree)
                node = _at(copy, path)
                before = ast.unparse(node)
                list(_changes(node))[number]()
                after = ast.unparse(_at(copy, path))
                change = f"{name}: {' '.join(before.split())} -> {' '.join(after.split())}"
                seen[change] += 1
                yield Mutant(
                    file=file,
                    change=change if seen[change] == 1 else f"{change} ({seen[change]})",
                    source=ast.unparse(copy),
                )


Path_ = tuple[tuple[str, int | None], ...]


def _at(tree: ast.AST, path: Path_) -> ast.AST:
    node = tree
    for field, index in path:
        value = getattr(node, field)
        node = value if index is None else value[index]
    return node


def _decisions(tree: ast.Module, file: str) -> Iterator[tuple[str, Path_]]:
    """Nodes that can be changed: in functions, and in the list of reasons."""

    def walk(node: ast.AST, path: Path_, name: str) -> Iterator[tuple[str, Path_]]:
        if _decides_nothing(node):
            return
        name = node.name if isinstance(node, ast.FunctionDef) else name
        if name and list(_changes(node)):
            yield name, path
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list", "args") and name == getattr(
                node, "name", None
            ):
                continue
            each = enumerate(value) if isinstance(value, list) else [(None, value)]
            for index, child in each:
                if isinstance(child, ast.AST):
                    yield from walk(child, (*path, (field, index)), name)

    for index, statement in enumerate(tree.body):
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield from walk(statement, (("body", index),), "")
        target = getattr(statement, "target", None)
        if isinstance(target, ast.Name) and target.id == "SKIP_REASONS":
            yield from walk(statement, (("body", index),), target.id)


def _decides_nothing(node: ast.AST) -> bool:
    """Explanations, types and names."""
    if isinstance(node, ast.FunctionDef):
        return node.name in UNREAD
    if isinstance(node, ast.keyword):
        return node.arg in ("why", "completed_by", "name", "step", "flag")
    return isinstance(node, ast.Raise | ast.JoinedStr)


def _changes(node: ast.AST) -> Iterator[Callable[[], None]]:
    """What can be done to `node` in place."""
    if isinstance(node, ast.If | ast.IfExp):
        yield lambda: setattr(node, "test", ast.UnaryOp(op=ast.Not(), operand=node.test))
    if isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield lambda: setattr(node, "op", other)
        for index in range(len(node.values)):
            yield lambda index=index: node.values.pop(index)
    if isinstance(node, ast.Compare):
        for turned in TURNED[type(node.ops[0])]:
            yield lambda turned=turned: setattr(node, "ops", [turned()])
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield lambda: setattr(node, "value", node.value + 1)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        for words in WORDS:
            if node.value in words:
                for word in words:
                    if word != node.value:
                        yield lambda word=word: setattr(node, "value", word)
                break


TESTS = (
    "tests/helper/test_plan.py",
    "tests/helper/test_reasons.py",
    "tests/verify/checks/prove/test_planned_reasons.py",
    # seconds each, and what they prove is proved before
    *("-k", "not the_proof_follows and not what_no_layer_does"),
)


def found_by(mutant: Mutant) -> str:
    """`prove` on up to four ranks, else `tests`, else empty: nobody.

    It is judged in a fork of a process that has imported nothing of this repository yet.
    """
    with TemporaryDirectory() as folder:
        package = Path(folder) / "helper"
        shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
        (package / mutant.file).write_text(mutant.source, encoding="utf-8")
        child = os.fork()
        if child == 0:
            os._exit(_judge(folder))
        _, status = os.waitpid(child, 0)
    return ("", "prove", "tests")[os.waitstatus_to_exitcode(status)]


def _judge(folder: str) -> int:
    """In the fork: an index into `found_by`'s answers."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    sys.path[:0] = [folder, str(ROOT)]
    os.environ["PYTHONPATH"] = folder
    try:
        from verify.checks.prove.planned import prove_plan  # noqa: PLC0415 (not before the fork)

        if prove_plan(max_world_size=4).faults:
            return 1
    except Exception:  # a plan that refuses or cannot be made
        return 1
    os.chdir(ROOT)
    return 2 if pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-n0", *TESTS]) else 0


if __name__ == "__main__":
    for mutant in mutants():
        if not sys.argv[1:] or sys.argv[1] in f"{mutant.file} {mutant.change}":
            line = {"file": mutant.file, "change": mutant.change, "found_by": found_by(mutant)}
            print(json.dumps(line), flush=True)
