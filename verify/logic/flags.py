"""The flags and the helper's predicate as truth tables, derived from the one list of reasons.

The list is read at every call: a reason added to `helper.reasons.SKIP_REASONS` doubles the rows of
everything here.
"""

from collections.abc import Collection

from helper import Path, SkipReason, reasons
from verify.logic import truth


def skip_reasons() -> tuple[SkipReason, ...]:
    """The reasons as the helper lists them now."""
    return reasons.SKIP_REASONS


def flag_names() -> tuple[str, ...]:
    """The flags in row order."""
    return tuple(reason.flag for reason in skip_reasons())


def flag_tables() -> dict[str, int]:
    """Each flag's truth table, by name."""
    return truth.variables(flag_names())


def alone(flag: str) -> int:
    """The number of the row in which `flag` is true and no other."""
    names = flag_names()
    return 1 << (len(names) - 1 - names.index(flag))


def flag_of(step: str) -> str:
    """The flag that says that a layer takes this step; empty where no reason has it."""
    return next((reason.flag for reason in skip_reasons() if reason.step == step), "")


def argument_flags() -> frozenset[str]:
    """The flags that forward() receives; the others are read from the configuration."""
    return frozenset(reason.flag for reason in skip_reasons() if reason.value is None)


def helper_skips(*, path: Path, handed: Collection[str]) -> int:
    """The rows in which the helper skips, asked row by row, as a truth table.

    `handed` are the argument flags that the call passes; the helper takes the others for False.
    Flags of the configuration always reach it.
    """
    names = flag_names()
    seen = [
        (reason.name, 1 << (len(names) - 1 - index))
        for index, reason in enumerate(skip_reasons())
        if reason.value is not None or reason.flag in handed
    ]
    table = 0
    for row in range(1 << len(names)):
        values = {name: bool(row & bit) for name, bit in seen}
        table |= reasons.any_reason(path=path, values=values) << row
    return table
