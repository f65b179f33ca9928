"""Ratios against a floor measured in the same run. They print and never fail on speed."""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product

import pytest

from oracles import SITES
from verify.checks.pull_request.readings import compare
from verify.logic import truth

pytestmark = pytest.mark.bench


def best(work: Callable[[], object], *, repeat: int) -> float:
    """Seconds of the fastest of `repeat` runs."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def say(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with capsys.disabled():
        print(f"\nbench: {line}", end="")


def run(*words: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, *words], check=True, capture_output=True)


def test_report_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    floor = best(run("-c", "import rich.console, rich.table"), repeat=7)
    table = best(run("-m", "verify", "report", "-q"), repeat=7)
    json = best(run("-m", "verify", "report", "-q", "--format", "json"), repeat=7)
    say(
        capsys,
        f"verify report: table {table / floor:.2f}x, json {json / floor:.2f}x of importing "
        f"rich.console and rich.table ({floor * 1e3:.0f} ms); reach 3x",
    )


def test_22_sites_three_readings(capsys: pytest.CaptureFixture[str]) -> None:
    took = best(lambda: compare(SITES), repeat=50)
    say(capsys, f"22 sites x 3 readings: {took * 1e3:.2f} ms; reach 2 ms")


def random_guard(flags: list[str], seed: int) -> str:
    draw = random.Random(seed)

    def term() -> str:
        chosen = draw.sample(flags, k=min(3, len(flags)))
        return "(" + " and ".join(draw.choice(("", "not ")) + flag for flag in chosen) + ")"

    return " or ".join(term() for _ in range(6))


@pytest.mark.parametrize(("count", "reach"), [(4, 15), (12, 30), (20, 40)])
def test_equivalence(count: int, reach: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The loop's guards are compiled beforehand; it calls them and lists the diff rows.

    The tables are measured three times, each including more.
    """
    flags = [f"f{index}" for index in range(count)]
    left, right = random_guard(flags, 1), random_guard(flags, 2)

    def by_tables() -> list[int]:
        tables = truth.variables(flags)
        first, second = (truth.evaluate(guard, tables, count) for guard in (left, right))
        return list(truth.rows(first ^ second))

    arguments = ", ".join(flags)
    first, second = (eval(f"lambda {arguments}: {guard}") for guard in (left, right))

    def by_loop() -> list[int]:
        return [
            row
            for row, values in enumerate(product((False, True), repeat=count))
            if first(*values) != second(*values)
        ]

    built = truth.variables(flags)
    tables = truth.evaluate(left, built, count), truth.evaluate(right, built, count)
    assert list(truth.rows(tables[0] ^ tables[1])) == by_loop()
    loop = best(by_loop, repeat=3)
    xor = best(lambda: tables[0] ^ tables[1], repeat=100)
    listed = best(lambda: list(truth.rows(tables[0] ^ tables[1])), repeat=10)
    whole = best(by_tables, repeat=10)
    say(
        capsys,
        f"equivalence at {count} flags, against a loop over itertools.product with callables: "
        f"XOR of built tables {loop / xor:,.0f}x, with the diff rows listed "
        f"{loop / listed:.2g}x, with both guards parsed and tabulated too {loop / whole:.2g}x; "
        f"reach {reach}x",
    )
