"""Which layouts a command line asks an engine for."""

from collections.abc import Sequence

from verify.engines.engine import Engine
from verify.engines.layout import ONE, Layout, parse
from verify.errors import VerifyError

__all__ = ["ONE", "Layout", "chosen", "parse"]


def chosen(engine: Engine, words: Sequence[str], *, everything: bool) -> list[Layout]:
    """The layouts of `words`, and with `everything` those of the engine's enumeration after them.

    Raises `VerifyError` for one that no server of the engine can have.
    """
    layouts = []
    for text in dict.fromkeys(words):
        layout = parse(text)
        why = engine.illegal(layout)
        if why:
            raise VerifyError(f"--layout {text}: {why}")
        layouts.append(layout)
    if everything:
        layouts += [layout for layout in engine.layouts() if layout not in layouts]
    return layouts
