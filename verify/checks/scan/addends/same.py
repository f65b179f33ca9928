"""Which values are the same on every rank: computed alike from what every rank holds."""

import re
from functools import lru_cache

from verify.checks.scan.skipped import SkippedMachine
from verify.interpreter.index import Function
from verify.interpreter.state import State
from verify.interpreter.values import (
    Choice,
    Const,
    Items,
    Origin,
    Place,
    Routine,
    Tensor,
    Text,
    Truth,
    Value,
)

# modules under layers/ whose weights every rank holds in full
_WHOLE_MODULE = re.compile(
    r"^ReplicatedLinear\(\)$|^\w*Norm\w*\(\)$|^TopK\(\)$|^(?:torch\.)?nn\.Linear\([^()]*\)$"
)
# functions that compute the same on every rank from arguments that are the same on every rank
_LIBRARY = re.compile(r"(?:torch|F|functional|nn)(?:\.\w+)+")
# ... except those that fill a tensor with something else or ask which rank this is
_FRESH = re.compile(r"zeros|empty|ones|full|rand|rank|scatter|gather|shard|split|chunk|local")
# an argument that is the same on every rank: configuration, a type, a shape
_SAME_EVERYWHERE = re.compile(
    r"config\b|^torch\.\w+$|^\w+\.(?:shape|device)(?:\[\w+\])?$|hidden_size|dtype"
)
_DEPENDS_ON_RANK = re.compile(r"\brank|_rank|world_size|Parameter\(|empty\(")
_A_SIZE = re.compile(r"(?:tp|ep|world)_size")


def fresh(name: str) -> bool:
    """Whether a call of that name fills a tensor anew, or deals with one rank's share."""
    return bool(_FRESH.search(name))


@lru_cache(maxsize=10_000)
def _says_same(text: str) -> bool:
    if _DEPENDS_ON_RANK.search(text) or _A_SIZE.search(text):
        return False
    return bool(_SAME_EVERYWHERE.search(text) or _WHOLE_MODULE.search(text))


class SameMachine(SkippedMachine):
    """Runs method bodies; knows which values and functions no rank sees differently."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        # by origin: the addition that put a complete value into a partial sum
        self.addends: dict[Origin, Place] = {}

    def alike(self, name: str) -> bool:
        """Whether what is called computes the same on every rank from the same arguments."""
        if _WHOLE_MODULE.search(name):
            return True
        if _LIBRARY.fullmatch(name):
            return not _FRESH.search(name)
        if not name.isidentifier() or _FRESH.search(name):
            return False
        found = self.state.frame.module.resolve(name)
        if isinstance(found, Function):
            piece = found.module.pieces.get(found.name)
            return piece is not None and not _DEPENDS_ON_RANK.search(piece.text)
        # a kernel from elsewhere sees nothing but its arguments
        return found is None and name in self.state.frame.module.imports

    def same_everywhere(self, value: Value) -> bool:
        """Whether every rank holds this value, as far as can be told."""
        match value:
            case Const() | Truth() | Routine():
                return True
            case Tensor(parts):
                return all(not part.axes and part.origin not in self.addends for part in parts)
            case Items(values):
                return all(self.same_everywhere(item) for item in values)
            case Text(text):
                return _says_same(text)
            case Choice(pairs):
                return all(self.same_everywhere(item) for _, item in pairs)
        return False
