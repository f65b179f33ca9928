"""What a case may differ by, measured on it, and what its own corruptions differ by."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verify.checks.serve import compare
from verify.checks.serve.case import Outcome
from verify.report.report import Json

# Half a unit in the last place of a float32 up to one, of every weight, up or down at random: a
# sum in another order is off by about as much. The largest of three draws.
SIZE = 2.0**-23
SEEDS = (0, 1, 2)
# docs/serve.md has the ratios that were measured
FACTOR = 10.0
# a tolerance passes only where each corruption of the case shows by this many times as much
MARGIN = 10.0
UNSET = "unset"

ROUNDING = tuple({"seed": seed, "size": SIZE} for seed in SEEDS)


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


def tolerance(one: Mapping[str, Any]) -> float:
    """`FACTOR` times the furthest that rounding-sized changes move the one rank, in nats."""
    (rank,) = one["ranks"]
    reference = compare.table(rank["rows"])
    moves = [
        max(compare.steps(reference, [variant["rows"]]).values()) for variant in rank["variants"]
    ]
    return FACTOR * max(moves)


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


def hidden(spoiled: Sequence[Corruption], *, allowed: float) -> list[Corruption]:
    """Those that ran and move the log-probabilities by less than a pass takes."""
    return [each for each in spoiled if each.nats is not None and each.nats < MARGIN * allowed]


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


def verdict(distance: float, allowed: float | None, least: float | None) -> Outcome:
    """`exact` only where the tolerance is known and a `MARGIN` below what a corruption gives.

    `least` is `smallest` of the case. A divergence stands whatever its corruptions do.
    """
    if allowed is None or not 0 < allowed < math.inf:
        return "ill-conditioned"
    if not distance <= allowed:
        return "diverged"
    return "exact" if least is not None and MARGIN * allowed <= least else "ill-conditioned"
