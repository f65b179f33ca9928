"""The first module whose output differs from one rank's although its inputs agree.

A value agrees where the rows that the rank holds are those of the one rank, within so many times
what rounding-sized changes of the weights do to it. It is a part where the values of a group of
ranks add up to it: a sum that is still to come is no fault. What a module makes of parts that
nobody has added up is one: that module is named, with those words.

Runs inside the engine's Python (standard library and torch).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from verify.engines.inside.rows import PADDING, Map, maps, others
from verify.engines.inside.witness import Call

COUNTS = [Fraction(2), Fraction(3), Fraction(4), Fraction(0)] + [
    Fraction(above, below) for below in (2, 3, 4) for above in range(1, below)
]
Key = tuple[str, str, int]
WHOLE, PART, DIFFERS, UNKNOWN = "whole", "part", "differs", "unknown"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where rows are: by step the `lengths` of all prompts, `shares` of each group of ranks.

    `partitions` are groups of ranks that may add their values up. A value may be off by `factor`
    times what moved weights do to it, or times `size`, what the type may lose, of its table's
    largest; a corruption is noticed where it moves one by `margin` times that.
    """

    ranks: int
    lengths: dict[str, list[int]]
    shares: list[list[int]]
    partitions: list[list[int]]
    factor: float = 10.0
    margin: float = 10.0
    size: float = 2.0**-23

    def group(self, rank: int) -> int:
        """Which group a rank is in."""
        return rank // (self.ranks // len(self.shares))

    def maps(self, count: int, step: str, rank: int) -> list[Map]:
        """Rows that a table of `count` may hold."""
        return maps(
            count,
            lengths=self.lengths[step],
            shares=self.shares,
            group=self.group(rank),
            ranks=self.ranks,
        )


@dataclass(frozen=True, kw_only=True)
class Value:
    """One table of the one rank's, how far it may be missed, and what each rank has for it."""

    one: torch.Tensor
    tolerance: float
    ranks: Sequence[torch.Tensor | None]
    step: str


def read(folder: Path, *, ranks: int, name: str = "") -> list[list[Call]]:
    """Each rank's calls; `name` is the change that was made, if any."""
    return [torch.load(folder / f"{name}rank{rank}.pt") for rank in range(ranks)]


def of_case(
    case: dict[str, Any], *, lengths: dict[str, list[int]], shares: list[list[int]]
) -> dict[str, Any]:
    """What `accused` says of the folders that two earlier cases kept as their `witness`.

    With `spoiled`, numbers of corruptions that the second one kept, `noticed` says it of each.
    """
    one, several, ranks = Path(case["one"]), Path(case["accuse"]), case["ranks"]
    whole = torch.load(one / "rank0.pt")
    moved = [torch.load(file) for file in sorted(one.glob("change*.rank0.pt"))]
    clean = read(several, ranks=ranks)
    layout = Layout(
        ranks=ranks,
        lengths=lengths,
        shares=shares,
        partitions=case["partitions"],
        **case.get("precision", {}),
    )
    if "spoiled" not in case:
        return accused(whole, moved, clean, layout)
    kept = (read(several, ranks=ranks, name=f"change{i}.") for i in case["spoiled"])
    return {"noticed": [noticed(whole, moved, clean, spoiled, layout) for spoiled in kept]}


def accused(
    one: list[Call], moved: Sequence[list[Call]], ranks: Sequence[list[Call]], layout: Layout
) -> dict[str, Any]:
    """`module`, `step`, `rank`, `what`, `rows` (how many of how many differ), `far`.

    `module` is None where none can be named, and `what` says why.
    """
    near = [{_key(call): call for call in calls} for calls in moved]
    tables = [{_key(call): call for call in calls} for calls in ranks]
    for call in one:
        found = _judge(call, near, tables, layout, one)
        if found is not None:
            return found
    last = one[-1]
    outputs = list(
        _values("outputs", last, near, [table.get(_key(last)) for table in tables], layout)
    )
    if outputs and all(
        relation(value, rank, layout)[0] == WHOLE
        for value in outputs
        for rank in range(layout.ranks)
    ):
        return _nobody("what follows the last module", "every module's output agrees")
    return _nobody(None, "no module is whole in its inputs and wrong in its output")


def noticed(
    one: list[Call],
    moved: Sequence[list[Call]],
    clean: Sequence[list[Call]],
    spoiled: Sequence[list[Call]],
    layout: Layout,
) -> dict[str, Any] | None:
    """The first value that is right in a clean run and would not be with a corruption, or None.

    `module`, whether it is of its `inputs` or `outputs`, `step`, `rank`, and how `far` the
    corruption moves it: `margin` times what a right value may be off by, and more.
    """
    near = [{_key(call): call for call in calls} for calls in moved]
    rights = [{_key(call): call for call in calls} for calls in clean]
    wrongs = [{_key(call): call for call in calls} for calls in spoiled]
    for call in one:
        right = [table.get(_key(call)) for table in rights]
        wrong = [table.get(_key(call)) for table in wrongs]
        for name in ("inputs", "outputs"):
            for number, value in enumerate(_values(name, call, near, right, layout)):
                for rank in range(layout.ranks):
                    distance = _moved(value, _at(wrong[rank], name, number), rank, layout)
                    if distance > layout.margin * value.tolerance:
                        place = {"module": call["name"], "value": name, "step": call["step"]}
                        return {**place, "rank": rank, "far": distance}
    return None


def _moved(value: Value, bad: torch.Tensor | None, rank: int, layout: Layout) -> float:
    """How far `bad` is from where a rank's value is right; 0 where that one is not right."""
    mine = value.ranks[rank]
    # almost every value before a corruption's place is the same one
    if mine is None or bad is None or mine.shape != bad.shape or torch.equal(mine, bad):
        return 0.0
    state, rows = relation(value, rank, layout)
    return far(bad, value.one, rows) if state == WHOLE and rows is not None else 0.0


def _judge(
    call: Call,
    near: Sequence[dict[Key, Call]],
    tables: Sequence[dict[Key, Call]],
    layout: Layout,
    one: list[Call],
) -> dict[str, Any] | None:
    """The accusation of one call, if any rank gives reason for it."""
    same = [table.get(_key(call)) for table in tables]
    inputs = list(_values("inputs", call, near, same, layout))
    outputs = list(_values("outputs", call, near, same, layout))
    for rank, mine in enumerate(same):
        if mine is None or call["other"] or mine["other"]:
            continue
        counts = {name: (len(call[name]), len(mine[name])) for name in ("inputs", "outputs")}
        if any(here != there for here, there in counts.values()):
            continue
        given = [relation(value, rank, layout) for value in inputs]
        if any(state not in (WHOLE, PART) for state, _ in given):
            continue
        for value in outputs:
            found = _wrong(value, rank, layout, [rows for _, rows in given])
            if found is None:
                continue
            if any(state == PART for state, _ in given):
                found["what"] = "takes parts of a sum that no rank has added up"
            elif found["what"] is None:
                found["what"] = _of_a_child(call, value, rank, layout, one)
            return {"module": call["name"], "step": call["step"], "rank": rank, **found}
    return None


def relation(value: Value, rank: int, layout: Layout) -> tuple[str, Map | None]:
    """`WHOLE`, `PART`, `DIFFERS` or `UNKNOWN` for a rank's table, and which rows it has."""
    mine = value.ranks[rank]
    if mine is None or mine.shape[1] != value.one.shape[1]:
        return UNKNOWN, None
    known = layout.maps(mine.shape[0], value.step, rank)
    for rows in known:
        if far(mine, value.one, rows) <= value.tolerance:
            return WHOLE, rows
    for partition in layout.partitions:
        tables = [value.ranks[other] for other in partition]
        held = [each for each in tables if each is not None and each.shape == mine.shape]
        if rank not in partition or len(partition) < 2 or len(held) < len(partition):
            continue
        total = torch.stack(held).sum(0)
        for rows in known:
            if far(total, value.one, rows) <= value.tolerance * len(partition):
                return PART, rows
    return (DIFFERS, known[0]) if known else (UNKNOWN, None)


def far(mine: torch.Tensor, one: torch.Tensor, rows: Map) -> float:
    """The largest distance over rows that are not padding; NaN is infinitely far."""
    return _largest(mine[_held(rows)] - one[_kept(rows)])


def _wrong(
    value: Value, rank: int, layout: Layout, given: Sequence[Map | None]
) -> dict[str, Any] | None:
    """What is wrong with an output whose inputs agree, None where nothing is."""
    mine = value.ranks[rank]
    state, rows = relation(value, rank, layout)
    if mine is None or state == UNKNOWN or rows is None:
        return None
    same = [each for each in given if each is not None and len(each) == len(rows)]
    if state == PART or (state == WHOLE and (not same or rows in same)):
        return None
    rows = same[0] if same else rows
    bad = _bad(mine, value, rows)
    if not bad:
        return None
    found = {
        "rows": [len(bad), sum(row != PADDING for row in rows)],
        "far": far(mine, value.one, rows),
    }
    return {**found, "what": _count(mine, value, rows, bad) or _foreign(mine, value, rank, layout)}


def _count(mine: torch.Tensor, value: Value, rows: Map, bad: list[int]) -> str | None:
    """`2x`, where the rows that differ are the right ones so many times."""
    right = value.one[[rows[row] for row in bad]]
    for count in COUNTS:
        if _largest(mine[bad] - float(count) * right) <= value.tolerance * max(1.0, float(count)):
            return f"{count}x" if count else "nothing"
    return None


def _foreign(mine: torch.Tensor, value: Value, rank: int, layout: Layout) -> str | None:
    """`another rank's rows`, where the table is right for other rows than its own."""
    everyone = others(
        mine.shape[0],
        lengths=layout.lengths[value.step],
        shares=layout.shares,
        group=layout.group(rank),
    )
    for rows in [*everyone, *layout.maps(mine.shape[0], value.step, rank)]:
        if far(mine, value.one, rows) <= value.tolerance:
            return "another rank's rows"
    return None


def _of_a_child(call: Call, value: Value, rank: int, layout: Layout, one: list[Call]) -> str | None:
    """`2x of model.layers.0.mlp`: what is too much or missing is so many times a child's output."""
    mine, (_, rows) = value.ranks[rank], relation(value, rank, layout)
    if mine is None or rows is None:
        return None
    bad = _bad(mine, value, rows)
    places = [rows[row] for row in bad]
    excess = mine[bad] - value.one[places]
    found: list[tuple[int, str]] = []
    for child in one:
        inside = child["step"] == call["step"] and child["name"].startswith(f"{call['name']}.")
        if not inside or len(child["outputs"]) != 1 or child["outputs"][0].shape != value.one.shape:
            continue
        part = child["outputs"][0][places]
        for count in COUNTS:
            if _largest(excess - float(count - 1) * part) <= value.tolerance * max(
                2.0, float(count)
            ):
                times = f"{count}x of" if count else "without"
                found.append((child["name"].count("."), f"{times} {child['name']}"))
    # a block and the last module in it may say the same: the block is the one that was added
    return min(found, key=lambda each: each[0])[1] if found else None


def _bad(mine: torch.Tensor, value: Value, rows: Map) -> list[int]:
    return [
        place
        for place, row in enumerate(rows)
        if row != PADDING and not _largest(mine[place] - value.one[row]) <= value.tolerance
    ]


def _values(
    name: str,
    call: Call,
    near: Sequence[dict[Key, Call]],
    same: Sequence[Call | None],
    layout: Layout,
) -> Iterator[Value]:
    for number, table in enumerate(call[name]):
        moves = [
            _largest(other[_key(call)][name][number] - table)
            for other in near
            if _key(call) in other
        ]
        yield Value(
            one=table,
            tolerance=layout.factor * max([*moves, layout.size * _largest(table)]),
            ranks=[_at(each, name, number) for each in same],
            step=call["step"],
        )


def _at(call: Call | None, name: str, number: int) -> torch.Tensor | None:
    if call is None or number >= len(call[name]):
        return None
    table: torch.Tensor = call[name][number]
    return table


def _largest(table: torch.Tensor) -> float:
    if table.numel() == 0:
        return 0.0
    largest = float(table.abs().max())
    return float("inf") if math.isnan(largest) else largest


def _held(rows: Map) -> list[int]:
    return [place for place, row in enumerate(rows) if row != PADDING]


def _kept(rows: Map) -> list[int]:
    return [row for row in rows if row != PADDING]


def _key(call: Call) -> Key:
    return call["step"], call["name"], call["call"]


def _nobody(module: str | None, what: str) -> dict[str, Any]:
    return {"module": module, "step": None, "rank": None, "what": what, "rows": None, "far": None}
