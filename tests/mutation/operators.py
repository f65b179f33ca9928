"""Every single mutation of one source file: small edits of decision code that keep its lines.

An edit replaces a span of characters. What replaces an expression is put in parentheses and has as
many line breaks, so that every other place keeps its line.
"""

import ast
import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.mutation.strata import SKIPPED, WORDS

ALL_REDUCES = (
    "tensor_model_parallel_all_reduce",
    "moe_expert_parallel_all_reduce",
    "moe_tensor_model_parallel_all_reduce",
    "attention_tensor_model_parallel_all_reduce",
    "attn_tp_all_reduce",
)
SUMS = {
    *ALL_REDUCES,
    "get_tp_group.all_reduce",
    "post_experts_all_reduce",
    "reduce_moe_output",
    "sum_post_experts_output",
    "sum_output",
    "_post_experts_sum",
    "all_reduce",
    "attn_tp_reduce_scatter",
    "dp_reduce_scatter_tensor",
}
GROUPS = (
    ("tp_group", "attn_tp_group", "moe_ep_group", "moe_tp_group"),
    ("TP", "ATTN_TP", "MOE_OUTPUT"),
    ("get_tp_group", "get_attention_tp_group", "get_moe_ep_group", "get_moe_tp_group"),
)
SIZES = (
    ("tp_size", "attn_tp_size", "ep_size", "moe_ep_size", "moe_tp_size"),
    (
        "get_tensor_model_parallel_world_size",
        "get_moe_expert_parallel_world_size",
        "get_moe_tensor_parallel_world_size",
        "get_attention_tp_size",
    ),
)
MODES = ("SCATTERED", "TP_ATTN_FULL", "FULL", "MOE_FULL")
FLAGS = ("should_allreduce_fusion", "use_reduce_scatter", "allow_reduce_scatter")
DECLARED = re.compile(
    r"is_\w+|.*sparse|may_\w+|allow_\w+|terminal|enable_\w+|use_\w+|should_\w+|skip_\w+|defer\w*"
)
OPERATORS = (
    "drop-term",
    "flag-argument",
    "flip-reduce-results",
    "guard-false",
    "guard-true",
    "move-addition",
    "negate-guard",
    "remove-sum",
    "replicate",
    "sum-twice",
    "swap-group",
    "swap-mode",
    "swap-size",
)


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """One edit of a file: the characters from `start` to `end` become `text`.

    `line` to `last` are the lines of the statement it is in; `name` is the function's.
    """

    operator: str
    name: str
    line: int
    last: int
    edits: tuple[tuple[int, int, str], ...]
    before: str
    after: str

    def apply(self, source: str) -> str:
        """The mutated file."""
        for start, end, text in sorted(self.edits, reverse=True):
            source = source[:start] + text + source[end:]
        return source


def mutations(source: str) -> list[Mutation]:
    """All that the file offers; not yet known to parse, to differ, or to keep every line."""
    return list(_File(source).mutations())


def mutated(source: str, mutation: Mutation) -> str | None:
    """The mutated file, None where it would be no Python, no change, or move a line."""
    text = mutation.apply(source)
    if text == source or text.count("\n") != source.count("\n"):
        return None
    try:
        same = ast.dump(ast.parse(text)) == _dumped(source)
    except SyntaxError:
        return None
    return None if same else text


@functools.lru_cache(maxsize=32)
def _dumped(source: str) -> str:
    return ast.dump(ast.parse(source))


class _File:
    """One source, its tree, and the edits that its nodes offer."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tree = ast.parse(source)
        self.lines = source.splitlines(keepends=True)
        self.offsets = [0]
        for line in self.lines:
            self.offsets.append(self.offsets[-1] + len(line))
        self.names = {
            alias.asname or alias.name
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ImportFrom | ast.Import)
            for alias in node.names
        } | {n.name for n in self.tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}

    def mutations(self) -> Iterator[Mutation]:
        for name, function in _functions(self.tree, ""):
            for statement in _statements(function):
                for operator, edits, before, after in self._edits(statement):
                    yield Mutation(
                        operator=operator,
                        name=name,
                        line=statement.lineno,
                        last=_header_end(statement),
                        edits=tuple(edits),
                        before=_flat(before)[:300],
                        after=_flat(after)[:300],
                    )
            yield from self._moves(name, function)

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Characters of a node; the tree counts columns in bytes."""
        start, end = (
            self.offsets[line - 1] + len(self.lines[line - 1].encode()[:column].decode())
            for line, column in (
                (node.lineno, node.col_offset),  # type: ignore[attr-defined]
                (node.end_lineno, node.end_col_offset),  # type: ignore[attr-defined]
            )
        )
        return start, end

    def text(self, node: ast.AST) -> str:
        start, end = self.span(node)
        return self.source[start:end]

    def _new(self, node: ast.AST, text: str) -> tuple[list[tuple[int, int, str]], str, str]:
        start, end = self.span(node)
        old = self.source[start:end]
        breaks = old.count("\n")
        plain = re.fullmatch(r"[\w.\"']+", text) and not breaks
        new = text if plain else f"({text}" + "\n" * breaks + ")"
        return [(start, end, new)], old, text

    def _edits(self, statement: ast.stmt):
        for node in _own_nodes(statement):
            if isinstance(node, ast.If | ast.IfExp):
                yield from self._guard_of(node)
            elif isinstance(node, ast.Return | ast.Assign | ast.keyword):
                value = node.value
                if isinstance(value, ast.BoolOp | ast.UnaryOp | ast.Compare):
                    whole = isinstance(node, ast.Return) or isinstance(value, ast.BoolOp)
                    if whole and WORDS.search(self.text(value)) and not _is_number(value):
                        yield from self._guards(value)
            if isinstance(node, ast.Call):
                yield from self._call(node)
            if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
                yield from self._names(node)

    def _guard_of(self, node: ast.If | ast.IfExp):
        body = node.body if isinstance(node.body, list) else [node.body]
        if all(isinstance(each, ast.Raise) for each in body):
            return
        sums = any(
            isinstance(inner, ast.Call) and _name(inner.func) in SUMS
            for each in body
            for inner in ast.walk(each)
        )
        if sums or WORDS.search(self.text(node.test)):
            yield from self._guards(node.test)

    def _guards(self, test: ast.expr):
        if isinstance(test, ast.BoolOp):
            word = " and " if isinstance(test.op, ast.And) else " or "
            for dropped in test.values:
                kept = [f"({self._line(v)})" for v in test.values if v is not dropped]
                yield "drop-term", *self._new(test, word.join(kept))
        yield "negate-guard", *self._new(test, f"not ({self._line(test)})")
        yield "guard-true", *self._new(test, "True")
        yield "guard-false", *self._new(test, "False")

    def _line(self, node: ast.AST) -> str:
        return _flat(re.sub(r"#[^\n]*", "", self.text(node)))

    def _call(self, call: ast.Call):
        name = _name(call.func)
        if name in ALL_REDUCES:
            for other in ALL_REDUCES:
                if other != name and other in self.names:
                    yield "swap-group", *self._new(call.func, other)
        if name in SUMS and call.args:
            first = self._line(
                call.args[-1] if name == "dp_reduce_scatter_tensor" else call.args[0]
            )
            yield "remove-sum", *self._new(call, first)
            if name not in ("attn_tp_reduce_scatter", "dp_reduce_scatter_tensor"):
                start, end = self.span(call.args[0])
                edit = (start, end, f"({self._line(call)}" + "\n" * self._breaks(start, end) + ")")
                yield "sum-twice", [edit], self.text(call), f"{name} of {self._line(call)}"
        yield from self._arguments(call, name)

    def _arguments(self, call: ast.Call, name: str):
        by_name = {each.arg: each.value for each in call.keywords if each.arg}
        for arg, value in by_name.items():
            if arg == "reduce_results":
                for word in ("True", "False"):
                    if word != self.text(value):
                        yield "flip-reduce-results", *self._new(value, word)
            elif DECLARED.fullmatch(arg) and name[:1].isalpha():
                for word in ("True", "False"):
                    if word != self.text(value):
                        yield "flag-argument", *self._new(value, word)
        if "tp_size" in by_name and "tp_rank" in by_name and name != "dict":
            edits = [(*self.span(by_name[k]), v) for k, v in (("tp_rank", "0"), ("tp_size", "1"))]
            yield "replicate", edits, self.text(call)[:80], "tp_rank=0, tp_size=1"
        for value in (*call.args, *by_name.values()):
            if isinstance(value, ast.Name) and value.id in FLAGS:
                for word in ("True", "False"):
                    yield "flag-argument", *self._new(value, word)

    def _breaks(self, start: int, end: int) -> int:
        return self.source[start:end].count("\n")

    def _names(self, node: ast.Attribute | ast.Name):
        word = node.attr if isinstance(node, ast.Attribute) else node.id
        for operator, families in (
            ("swap-group", GROUPS),
            ("swap-size", SIZES),
            ("swap-mode", (MODES,)),
        ):
            for family in families:
                for other in family if word in family else ():
                    if other == word:
                        continue
                    if isinstance(node, ast.Attribute):
                        # what nothing here has would only end the launch
                        if f".{other}" not in self.source and operator != "swap-mode":
                            continue
                        yield operator, *self._new(node, f"{self._line(node.value)}.{other}")
                    elif other in self.names:
                        yield operator, *self._new(node, other)

    def _moves(self, name: str, function: ast.AST) -> Iterator[Mutation]:
        """Two neighbours, one of which sums and one of which adds, in the other order."""
        for node in ast.walk(function):
            for field in ("body", "orelse"):
                block = getattr(node, field, None)
                for one, two in itertools.pairwise(block) if _is_block(block) else ():
                    if {self._role(one), self._role(two)} != {"sum", "add"}:
                        continue
                    (start, middle), (after, end) = self.span(one), self.span(two)
                    a, b = self.text(one), self.text(two)
                    yield Mutation(
                        operator="move-addition",
                        name=name,
                        line=one.lineno,
                        last=two.end_lineno or two.lineno,
                        edits=((start, end, b + self.source[middle:after] + a),),
                        before=_flat(f"{a} ; {b}")[:300],
                        after=_flat(f"{b} ; {a}")[:300],
                    )

    def _role(self, statement: ast.stmt) -> str:
        calls = {_name(n.func) for n in ast.walk(statement) if isinstance(n, ast.Call)}
        sums = bool(calls & SUMS)
        adds = "shared" in self.text(statement) and any(
            isinstance(n, ast.Add) or (isinstance(n, ast.Call) and _name(n.func) == "add_")
            for n in ast.walk(statement)
        )
        return "" if sums == adds else "sum" if sums else "add"


def _functions(tree: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and not SKIPPED.search(prefix + node.name):
            yield prefix + node.name, node


def _statements(function: ast.FunctionDef) -> Iterator[ast.stmt]:
    """Every statement of a body, nested ones included, without the function itself."""
    for node in ast.walk(function):
        if isinstance(node, ast.stmt) and node is not function:
            yield node


def _own_nodes(statement: ast.stmt) -> Iterator[ast.AST]:
    """The nodes of a statement that are in no statement below it."""
    yield statement
    todo = [n for n in ast.iter_child_nodes(statement) if not isinstance(n, ast.stmt)]
    while todo:
        node = todo.pop()
        yield node
        todo += [n for n in ast.iter_child_nodes(node) if not isinstance(n, ast.stmt)]


def _header_end(statement: ast.stmt) -> int:
    """The last line that runs when the statement does: without the body of a compound one."""
    body = getattr(statement, "body", None)
    return body[0].lineno - 1 if _is_block(body) else statement.end_lineno or statement.lineno


def _is_block(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], ast.stmt)


def _is_number(value: ast.expr) -> bool:
    return isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.USub | ast.UAdd)


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Name):
        return function.id
    return function.attr if isinstance(function, ast.Attribute) else ""


def _flat(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
