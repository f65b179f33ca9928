"""Truth tables as integers: bit i of a table is the predicate's value in row i.

Row i assigns the flags from the bits of i, the first flag the most significant, so that a row
written as text (`0010`) reads in flag order. Four flags fit one machine word; twenty fit a Python
integer of a million bits, and every connective is one operation on it.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import compress, count

from verify.errors import VerifyError

MAX_FLAGS = 20
_DIGITS = bytes.maketrans(b"01", b"\0\1")


@lru_cache(maxsize=256)
def full(flag_count: int) -> int:
    """The table that is true in every one of the 2**flag_count rows."""
    if not 0 <= flag_count <= MAX_FLAGS:
        raise VerifyError(f"{flag_count} flags: tables are made for 0 to {MAX_FLAGS}")
    return (1 << (1 << flag_count)) - 1


@lru_cache(maxsize=256)
def variable(index: int, flag_count: int) -> int:
    """The table of flag number `index`: runs of 2**(flag_count-1-index) zeros, then ones."""
    run = 1 << (flag_count - 1 - index)
    table, width = ((1 << run) - 1) << run, 2 * run
    while width < 1 << flag_count:
        table |= table << width
        width *= 2
    return table


def variables(flags: Sequence[str]) -> dict[str, int]:
    """Each flag's table, by name."""
    return {flag: variable(index, len(flags)) for index, flag in enumerate(flags)}


def where_false(table: int, index: int, flag_count: int) -> int:
    """The table in which every row has the value of its twin where flag `index` is False."""
    kept = table & ~variable(index, flag_count)
    return kept | kept << (1 << (flag_count - 1 - index))


def depends_on(table: int, index: int, flag_count: int) -> bool:
    """Whether some row's value changes when flag number `index` alone is turned over."""
    return table != where_false(table, index, flag_count)


def rows(table: int) -> Iterator[int]:
    """The rows in which `table` is true, ascending, in time linear in the number of rows."""
    return compress(count(), f"{table:b}".encode()[::-1].translate(_DIGITS))


def row_bits(row: int, flag_count: int) -> str:
    """A row as text in flag order, `0010`."""
    return format(row, f"0{flag_count}b") if flag_count else ""


def all_bits(flag_count: int) -> tuple[str, ...]:
    """Every row as text."""
    return tuple(row_bits(row, flag_count) for row in range(1 << flag_count))


def table_bits(table: int, flag_count: int) -> list[str]:
    """The rows in which `table` is true, as text."""
    return [row_bits(row, flag_count) for row in rows(table)]


def evaluate(expression: str, tables: Mapping[str, int], flag_count: int) -> int:
    """The table of a Python expression of flag names, `and`, `or`, `not`, True and False.

    Raises `VerifyError` for anything else in it.
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval")
        return _evaluate(tree.body, tables, full(flag_count), expression)
    except (SyntaxError, ValueError) as error:
        raise VerifyError(f"guard {_shown(expression)} is not a Python expression") from error
    except (RecursionError, MemoryError) as error:
        raise VerifyError(f"guard {_shown(expression)} is nested too deeply") from error


def _evaluate(node: ast.expr, tables: Mapping[str, int], ones: int, expression: str) -> int:
    match node:
        case ast.Name(id=name) if name in tables:
            return tables[name]
        case ast.Constant(value=bool(value)):
            return ones if value else 0
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return ones ^ _evaluate(operand, tables, ones, expression)
        case ast.BoolOp(op=op, values=values):
            parts = [_evaluate(value, tables, ones, expression) for value in values]
            result = parts[0]
            for part in parts[1:]:
                result = result & part if isinstance(op, ast.And) else result | part
            return result
    raise VerifyError(
        f"guard {_shown(expression)}: {_shown(ast.unparse(node))} is not a flag; "
        f"flags are {', '.join(tables)}"
    )


def _shown(expression: str) -> str:
    return repr(expression if len(expression) <= 200 else f"{expression[:200]}...")
