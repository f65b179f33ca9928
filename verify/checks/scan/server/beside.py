"""Which layers does a model surely have, beside the one that is asked about?

A model that tells its layers apart by their numbers alone has every kind of them: what ends the
constructor of one ends the launch of all.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from verify.checks.scan.server.evaluate import TooMuchError
from verify.checks.scan.server.follow import Follower, RefusedError
from verify.checks.scan.server.values import UNKNOWN, Built, Code, Thing
from verify.engines.sources import reading
from verify.interpreter.index import Class, Index

ENGINE = reading()
MODELS, STACKS = ENGINE.library.models, ENGINE.launches.stacks
# every model has so many layers
FIRST = 4


@lru_cache(maxsize=8)
def built_surely(index: Index, model: Class) -> frozenset[Class]:
    """The classes that a model's constructor builds in every case."""
    builder = _Builder(index, model)
    try:
        builder.call(Built(model), (), {})
    except (RefusedError, TooMuchError, RecursionError):
        return frozenset()
    return frozenset(builder.built)


class _Builder(Follower):
    """Follows a model down to its layers, and no further."""

    def __init__(self, index: Index, model: Class) -> None:
        super().__init__(index, dict.fromkeys(STACKS, _stack), builds=(MODELS,))
        self.model = model
        self.built: set[Class] = set()

    def call(self, target: Any, positional: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Call a value; of a class that holds no layers, only that it is built is noted."""
        if isinstance(target, Built) and target.cls is not self.model:
            if self.certain:
                self.built.add(target.cls)
            if not any(one.has(STACKS) for one in target.cls.ancestors):
                return Thing(target.cls)
        return super().call(target, positional, keywords)


def _stack(follower: Follower, _: Any, positional: Sequence[Any], named: Mapping[str, Any]) -> Any:
    """A layer for each number, by a function of the number."""
    for value in (*positional, *named.values()):
        if isinstance(value, Code) and value.function.node.args.args:
            name = value.function.node.args.args[0].arg
            for number in range(FIRST):
                follower.call(value, (), {name: number})
    return UNKNOWN
