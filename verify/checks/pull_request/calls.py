"""The calls to the pull request's helper in a source's models, as written. Nothing is imported."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from helper import Path
from verify.interpreter.index import Class, Function, FunctionNode, Index, Module, UnreadableError

HELPER = "should_skip_post_experts_all_reduce"
MODELS = "sglang/srt/models/"
_PATHS: Mapping[str, Path] = {"False": "EP", "True": "TP"}


@dataclass(frozen=True, kw_only=True)
class HelperCall:
    """One call: where it is, its `is_tp_path` as a path, its other keywords with their values.

    `path` is None where `is_tp_path` is not written as True or False; `parameters` are the names
    that the surrounding method receives.
    """

    file: str
    line: int
    cls: str | None
    method: str
    path: Path | None
    passes: Mapping[str, str]
    parameters: tuple[str, ...]

    @property
    def name(self) -> str:
        """`Class.method/PATH`; `?` where the path is not written as a literal."""
        owner = f"{self.cls}." if self.cls else ""
        return f"{owner}{self.method}/{self.path or '?'}"


def helper_calls(index: Index) -> tuple[HelperCall, ...]:
    """Every call in the model files, in file order; what cannot be parsed goes to `unread`."""
    found: list[HelperCall] = []
    for path in index.tree.under(MODELS):
        module = index.module(path)
        if module is not None and f"{HELPER}(" in module.text:
            try:
                found += _calls(module)
            except UnreadableError as error:
                index.unread.setdefault(path, str(error))
    return tuple(sorted(found, key=lambda call: (call.file, call.line)))


def _calls(module: Module) -> Iterator[HelperCall]:
    for name, piece in module.pieces.items():
        definition = module.lookup(name) if HELPER in piece.text else None
        if isinstance(definition, Class):
            for method in definition.methods.values():
                yield from _calls_in(method, cls=definition.name, file=module.path)
        elif isinstance(definition, Function) and not isinstance(definition.node, ast.Lambda):
            yield from _calls_in(definition.node, cls=None, file=module.path)


def _calls_in(method: FunctionNode, *, cls: str | None, file: str) -> Iterator[HelperCall]:
    arguments = method.args
    for node in ast.walk(method):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == HELPER:
            given = {word.arg or "**": ast.unparse(word.value) for word in node.keywords}
            yield HelperCall(
                file=file,
                line=node.lineno,
                cls=cls,
                method=method.name,
                path=_PATHS.get(given.pop("is_tp_path", "")),
                passes=given,
                parameters=tuple(
                    argument.arg
                    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
                ),
            )
