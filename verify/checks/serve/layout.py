"""Which layouts a command line asks an engine for."""

from collections.abc import Sequence

from verify.engines.engine import Engine
from verify.engines.layout import ONE, Layout, parse
from verify.errors import VerifyError

__all__ = ["ONE", "Layout", "chosen", "parse"]


def chosen(engine: Engine, words: Sequence[str], *, everything: bool) -> list[Layout]:
    """The layouts of `words`, each once, and with `everything` those of the enumeration after them.

    A word is a layout or the name of a subset. Raises `VerifyError` for one that no server of the
    engine can have.
    """
    layouts: list[Layout] = []
    for text in words:
        layouts += engine.subsets.get(text) or [_legal(engine, text)]
    if everything:
        layouts += engine.layouts()
    return list(dict.fromkeys(layouts))


def _legal(engine: Engine, text: str) -> Layout:
    layout = parse(text)
    why = engine.illegal(layout)
    if why:
        raise VerifyError(f"--layout {text}: {why}")
    return layout
