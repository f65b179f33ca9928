"""Rows of log-probabilities of several ranks against one rank's."""

import base64
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

Key = tuple[str, int]
Values: TypeAlias = "array[float]"
Table: TypeAlias = "dict[tuple[str, int], array[float]]"


def decode(row: Mapping[str, Any]) -> Values:
    """The floats of one row."""
    values = array("f")
    values.frombytes(base64.b64decode(row["logprobs"]))
    return values


def table(rows: Iterable[Mapping[str, Any]]) -> dict[Key, Values]:
    """Step and prompt -> log-probabilities by token."""
    return {(row["step"], row["prompt"]): decode(row) for row in rows}


def steps(
    one: Mapping[Key, Values], ranks: Sequence[Iterable[Mapping[str, Any]]]
) -> dict[str, float]:
    """The largest |difference| a step over all ranks, in nats; NaN counts as infinite.

    Raises ValueError where the ranks together do not hold each row of the one.
    """
    worst: dict[str, float] = {step: 0.0 for step, _ in one}
    seen: set[Key] = set()
    for rows in ranks:
        for key, values in table(rows).items():
            seen.add(key)
            worst[key[0]] = max(worst[key[0]], _distance(one[key], values))
    if seen != set(one):
        missing = sorted(set(one) - seen)
        raise ValueError(f"no rank holds {len(missing)} rows, such as {missing[0]}")
    return worst


def _distance(left: Values, right: Values) -> float:
    if len(left) != len(right):
        return math.inf
    worst = 0.0
    for a, b in zip(left, right, strict=True):
        distance = abs(a - b)
        # a comparison with NaN is never true
        if not distance <= worst:
            worst = math.inf if math.isnan(distance) else distance
    return worst
