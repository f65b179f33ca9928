"""Which module of a model runs: names, and hooks that see what goes in and comes out.

Runs inside the engine's Python (standard library and torch).
"""

import re
from collections.abc import Callable
from typing import Any

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")

Enter = Callable[[str, tuple[Any, ...], dict[str, Any]], None]
Leave = Callable[[str, Any], None]


def pattern(name: str) -> str:
    """A module's name without its layer: `model.layers.*.mlp`."""
    return _NUMBER.sub("*", name)


class Running:
    """The names of the modules that run now, outermost first; others may listen."""

    def __init__(self) -> None:
        self.stack: list[str] = []
        self._listeners: list[tuple[Enter, Leave]] = []

    def listen(self, enter: Enter, leave: Leave) -> None:
        """`enter(name, positional, named)` before each module runs, `leave(name, output)` after."""
        self._listeners.append((enter, leave))

    def attach(self, model: Any) -> None:
        """Hook every module of `model` but the model itself."""
        for name, module in model.named_modules():
            if name:
                self._hook(name, module)

    def inner(self) -> str:
        """The innermost module that runs, as a pattern; "" outside of all."""
        return pattern(self.stack[-1]) if self.stack else ""

    def _hook(self, name: str, module: Any) -> None:
        def before(_module: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
            self.stack.append(name)
            for enter, _ in self._listeners:
                enter(name, positional, named)

        def after(_module: Any, _positional: Any, output: Any) -> None:
            self.stack.pop()
            for _, leave in self._listeners:
                leave(name, output)

        module.register_forward_pre_hook(before, with_kwargs=True)
        module.register_forward_hook(after)
