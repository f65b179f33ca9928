"""Truth tables as integers against one evaluation a row."""

from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.errors import VerifyError
from verify.logic import truth

NAMES = [f"f{index}" for index in range(12)]
flag_lists = st.integers(min_value=1, max_value=12).map(lambda count: NAMES[:count])


def guards(flags: Sequence[str]) -> st.SearchStrategy[str]:
    atoms = st.sampled_from([*flags, "True", "False"])
    return st.recursive(
        atoms,
        lambda inner: st.one_of(
            inner.map("not ({})".format),
            st.lists(inner, min_size=2, max_size=4).map(lambda parts: f"({' and '.join(parts)})"),
            st.lists(inner, min_size=2, max_size=4).map(lambda parts: f"({' or '.join(parts)})"),
        ),
        max_leaves=12,
    )


def naive(guard: str, flags: Sequence[str]) -> list[bool]:
    """The guard's value in every row, by Python itself, the first flag the slowest."""
    code = compile(guard, "guard", "eval")
    return [
        bool(eval(code, {}, dict(zip(flags, values, strict=True))))
        for values in product((False, True), repeat=len(flags))
    ]


def tabulate(guard: str, flags: Sequence[str]) -> int:
    return truth.evaluate(guard, truth.variables(flags), len(flags))


def as_list(table: int, flags: Sequence[str]) -> list[bool]:
    return [bool(table >> row & 1) for row in range(1 << len(flags))]


@settings(max_examples=50)
@given(flag_lists.flatmap(lambda flags: st.tuples(st.just(flags), guards(flags))))
def test_a_table_is_the_naive_evaluation(case: tuple[list[str], str]) -> None:
    flags, guard = case
    assert as_list(tabulate(guard, flags), flags) == naive(guard, flags)


@settings(max_examples=50)
@given(flag_lists.flatmap(lambda flags: st.tuples(st.just(flags), guards(flags), guards(flags))))
def test_the_xor_of_two_tables_is_the_pointwise_diff(case: tuple[list[str], str, str]) -> None:
    flags, left, right = case
    differing = [
        row
        for row, (a, b) in enumerate(zip(naive(left, flags), naive(right, flags), strict=True))
        if a != b
    ]
    assert list(truth.rows(tabulate(left, flags) ^ tabulate(right, flags))) == differing


@given(flag_lists.flatmap(lambda flags: st.tuples(st.just(flags), guards(flags))), st.data())
def test_where_false_and_depends_on(case: tuple[list[str], str], data: st.DataObject) -> None:
    flags, guard = case
    index = data.draw(st.sampled_from(range(len(flags))))
    values = naive(guard, flags)
    weight = 1 << (len(flags) - 1 - index)
    cleared = [values[row & ~weight] for row in range(1 << len(flags))]
    table = tabulate(guard, flags)
    assert as_list(truth.where_false(table, index, len(flags)), flags) == cleared
    assert truth.depends_on(table, index, len(flags)) == (cleared != values)


@given(st.integers(min_value=0, max_value=19), st.integers(min_value=0, max_value=2**20 - 1))
def test_twenty_flags_work_as_four_do(index: int, row: int) -> None:
    table = truth.variable(index, 20)
    assert bool(table >> row & 1) == (truth.row_bits(row, 20)[index] == "1")


def test_rows_are_written_in_flag_order() -> None:
    tables = truth.variables(("AF", "RS", "DP", "FI"))
    assert truth.table_bits(tables["AF"], 4)[0] == "1000"
    assert truth.table_bits(tables["FI"] & ~tables["AF"] & ~tables["RS"] & ~tables["DP"], 4) == [
        "0001"
    ]
    assert truth.all_bits(2) == ("00", "01", "10", "11")
    assert truth.all_bits(0) == ("",)


def test_full_is_every_row() -> None:
    assert list(truth.rows(truth.full(4))) == list(range(16))


@pytest.mark.parametrize("count", [-1, 21])
def test_more_flags_than_can_be_enumerated_are_refused(count: int) -> None:
    with pytest.raises(VerifyError) as caught:
        truth.full(count)
    assert str(caught.value) == f"{count} flags: tables are made for 0 to 20"


REFUSED = {
    "AF or": "guard 'AF or' is not a Python expression",
    "AF or XX": "guard 'AF or XX': 'XX' is not a flag; flags are AF, RS",
    "AF ^ RS": "guard 'AF ^ RS': 'AF ^ RS' is not a flag; flags are AF, RS",
    "AF == RS": "guard 'AF == RS': 'AF == RS' is not a flag; flags are AF, RS",
    "print()": "guard 'print()': 'print()' is not a flag; flags are AF, RS",
    "1": "guard '1': '1' is not a flag; flags are AF, RS",
    "-AF": "guard '-AF': '-AF' is not a flag; flags are AF, RS",
    "\0": "guard '\\x00' is not a Python expression",
}


@pytest.mark.parametrize("guard", REFUSED, ids=lambda guard: ascii(guard[:12]))
def test_anything_but_flags_and_connectives_is_refused(guard: str) -> None:
    with pytest.raises(VerifyError) as caught:
        tabulate(guard, ("AF", "RS"))
    assert str(caught.value) == REFUSED[guard]


@pytest.mark.parametrize("guard", ["not " * 9000 + "AF", "(" * 9000, "AF and " * 9000])
def test_a_monstrous_guard_is_refused_in_one_short_line(guard: str) -> None:
    with pytest.raises(VerifyError) as caught:
        tabulate(guard, ("AF", "RS"))
    assert len(str(caught.value)) < 300


def test_the_naive_evaluation_disagrees_with_a_wrong_table() -> None:
    """The comparison above can fail: a table of the wrong connective is not the naive one."""
    flags = NAMES[:2]
    assert as_list(tabulate("f0 or f1", flags), flags) != naive("f0 and f1", flags)
