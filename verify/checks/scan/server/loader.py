"""A checkpoint that a model's own loader refuses: it raises on a name that it does not know.

A checkpoint that is quantised names the weights and scales of each expert by its number; a loader
that maps no such names, and is strict, ends the launch. Told by what `load_weights` calls.
"""

import re
from collections.abc import Iterator

from verify.checks.scan.server.arguments import Options, Refusal
from verify.interpreter.index import Class, Module

LOADS = "load_weights"
QUANTISED = "quantization"
_STRICT = re.compile(r"\n[ \t]+if \w+ not in \w*param\w*:\n[ \t]+(?=raise )")
_BY_NUMBER = re.compile(r"expert\w*params?_mapping|make_expert\w*mapping")
_CALLED = re.compile(r"(?<![\w.])[a-z_]\w*(?=\()")


def refuses_checkpoint(model: Class | None, asked: Options) -> Refusal | None:
    """Where a model's loader raises on a checkpoint that is quantised as the launch asks for."""
    method = model.method(LOADS) if model is not None and QUANTISED in asked else None
    if method is None or method.owner is None:
        return None
    piece = method.owner.methods.pieces[LOADS]
    read = [(piece.text, piece.line), *_called(method.module, piece.text, set())]
    if any(_BY_NUMBER.search(text) or "super()" in text for text, _ in read):
        return None
    for text, line in read:
        strict = _STRICT.search(text)
        if strict is not None:
            at = line + text.count("\n", 0, strict.end())
            return Refusal(file=method.module.path, line=at)
    return None


def _called(module: Module, text: str, seen: set[str]) -> Iterator[tuple[str, int]]:
    """The file's own functions that a text calls at any remove, and where they begin."""
    for name in dict.fromkeys(_CALLED.findall(text)):
        if name in module.pieces and name not in seen:
            seen.add(name)
            piece = module.pieces[name]
            yield piece.text, piece.line
            yield from _called(module, piece.text, seen)
