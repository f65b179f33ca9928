"""What goes into each module of a forward pass and comes out of it, kept in a file.

Runs inside the engine's Python (standard library and torch).
"""

from pathlib import Path
from typing import Any

import torch

from verify.engines.inside.modules import Running

Call = dict[str, Any]
"""`step`, `name`, `call` (its number in the step), `inputs`, `outputs`, `other`: whether some input
is a tensor of floats that is not rows by columns (dimensions of one before them aside). A value is
a table; the first two of equal shape are summed, since a layer hands on what it adds and the
residual that it is added to apart. Values are kept on the CPU, as float32 or wider."""


class Witness:
    """Listens to `running` while `active`; `take` writes what it saw and forgets it."""

    def __init__(self, running: Running, *, step: Any) -> None:
        self.active = False
        self._step = step
        self._open: list[tuple[list[torch.Tensor], bool]] = []
        self._calls: list[Call] = []
        self._count: dict[tuple[str, str], int] = {}
        running.listen(self._enter, self._leave)

    def take(self, file: Path) -> None:
        """Write the calls, in the order in which they ended."""
        file.parent.mkdir(exist_ok=True)
        torch.save(self._calls, file)
        self._calls, self._count = [], {}

    def _enter(self, _name: str, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        if self.active:
            tables, other = _tables([*positional, *named.values()])
            self._open.append((summed(tables), other))

    def _leave(self, name: str, output: Any) -> None:
        if not self.active:
            return
        inputs, other = self._open.pop()
        tables, _ = _tables([output])
        step = self._step()
        number = self._count[step, name] = self._count.get((step, name), -1) + 1
        self._calls.append(
            {
                "step": step,
                "name": name,
                "call": number,
                "inputs": inputs,
                "outputs": summed(tables),
                "other": other,
            }
        )


def summed(tables: list[torch.Tensor]) -> list[torch.Tensor]:
    """The sum of the first two where their shapes agree, and the rest; copies."""
    if len(tables) > 1 and tables[0].shape == tables[1].shape:
        return [tables[0] + tables[1], *(table.clone() for table in tables[2:])]
    return [table.clone() for table in tables]


def _tables(values: Any) -> tuple[list[torch.Tensor], bool]:
    """Tables of floats within tuples and lists, and whether there were other tensors of floats."""
    tables: list[torch.Tensor] = []
    other = False
    for value in values:
        if isinstance(value, torch.Tensor):
            if value.is_floating_point():
                # transformers' own modules have a batch of one
                batch = value.shape[:-2].numel()
                if value.dim() >= 2 and batch == 1:
                    table = value.detach().reshape(value.shape[-2:]).cpu()
                    tables.append(table.float() if table.element_size() < 4 else table)
                else:
                    other = True
        elif isinstance(value, tuple | list):
            inner, more = _tables(value)
            tables, other = tables + inner, other or more
    return tables, other
