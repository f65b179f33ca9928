"""What a case may differ by, measured on it, and what its own corruptions differ by."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verify.checks.serve import compare
from verify.checks.serve.case import Outcome
from verify.engines.engine import FLOAT32, Precision
from verify.report.report import Json

# a sum in another order is off by about as much as the largest of three draws
SEEDS = (0, 1, 2)
UNSET = "unset"


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One thing that was made wrong in a layout, and how far its answer moved, in nats.

    `change` is what the engine's process was asked for. `seen` is `diverged`, `in-module` (the
    log-probabilities hide it, as a norm behind it does; `module` is the first with a value that is
    right in the run as it is and would not be), `unused` (not a number in its place changes
    nothing either), `not-seen`, `sizes-differ` or `cannot-run`; `nats` is None in the last two.
    """

    change: Mapping[str, Any]
    nats: float | None
    seen: str
    module: str | None = None

    @property
    def where(self) -> str:
        """The place in the engine and what it sums, or the parameter."""
        if "slice" in self.change:
            return f"{self.change['slice']} of rank {self.change['rank']}"
        place, module, function, ranks = self.change["site"]
        return f"{place} {module} {function} of {ranks}"

    @property
    def how(self) -> str:
        """`doubled`, `dropped`, `over GROUP`, `zero`."""
        return str(self.change.get("how", "zero"))

    def as_json(self) -> dict[str, Json]:
        """A row of `corruptions`."""
        return {
            "where": self.where,
            "how": self.how,
            "nats": self.nats,
            "seen": self.seen,
            "module": self.module,
        }


def rounding(precision: Precision = FLOAT32) -> list[dict[str, Any]]:
    """The changes that are about what rounding does."""
    return [{"seed": seed, "size": precision.size} for seed in SEEDS]


def tolerance(one: Mapping[str, Any], precision: Precision = FLOAT32) -> float:
    """`factor` times the furthest that rounding-sized changes move the one rank, in nats."""
    (rank,) = one["ranks"]
    reference = compare.table(rank["rows"])
    moves = [
        max(compare.steps(reference, [variant["rows"]]).values()) for variant in rank["variants"]
    ]
    return precision.factor * max(moves)


def corruptions(answer: Mapping[str, Any], *, allowed: float) -> Iterator[Corruption]:
    """A run's variants against its own rows; beyond `allowed` nats it is seen."""
    ranks = answer["ranks"]
    clean: compare.Table = {}
    for rank in ranks:
        clean.update(compare.table(rank["rows"]))
    for number, variant in enumerate(ranks[0]["variants"]):
        rows = [rank["variants"][number]["rows"] for rank in ranks]
        nats = max(compare.steps(clean, rows).values())
        seen = "not-seen" if nats <= allowed else "diverged"
        yield Corruption(change=variant["change"], nats=nats, seen=seen)


def own(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each collective in each way that it can be wrong by itself."""
    return [
        {"site": site["words"], "how": how}
        for site in answer["ranks"][0]["sites"]
        for how in site["hows"]
    ]


def slices(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each parameter that the last rank holds a part of, set to zero there."""
    last = len(answer["ranks"]) - 1
    tried = [variant["change"].get("slice") for variant in answer["ranks"][0]["variants"]]
    names = answer["ranks"][last]["slices"]
    return [{"slice": name, "rank": last} for name in names if name not in tried]


def elsewhere(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each collective over each other group of ranks that it could be given."""
    return [
        {"site": site["words"], "how": f"over {group}"}
        for site in answer["ranks"][0]["sites"]
        for group in site["elsewhere"]
    ]


def key(change: Mapping[str, Any]) -> str:
    """What a change is made to, whatever is done to it."""
    return repr(change.get("slice") or change.get("site"))


def hidden(
    spoiled: Sequence[Corruption], *, allowed: float, precision: Precision = FLOAT32
) -> list[Corruption]:
    """Those that ran and move the log-probabilities by less than a pass takes."""
    least = precision.margin * allowed
    return [each for each in spoiled if each.nats is not None and each.nats < least]


def smallest(spoiled: Sequence[Corruption]) -> float | None:
    """The smallest divergence of those that have one and are of use, None where there is none.

    One that a module's value shows is seen, however little of it reaches the log-probabilities.
    """
    far = [
        math.inf if each.seen == "in-module" else each.nats
        for each in spoiled
        if each.nats is not None and each.seen != "unused"
    ]
    return min(far, default=None)


def verdict(
    distance: float,
    allowed: float | None,
    least: float | None,
    precision: Precision = FLOAT32,
) -> Outcome:
    """`exact` only where the tolerance is known and a margin below what a corruption gives.

    `least` is `smallest` of the case. A divergence stands whatever its corruptions do.
    """
    if allowed is None or not 0 < allowed < math.inf:
        return "ill-conditioned"
    if not distance <= allowed:
        return "diverged"
    return (
        "exact" if least is not None and precision.margin * allowed <= least else "ill-conditioned"
    )
