"""The flags and the helper's predicate as tables, from the one list of reasons."""

import pytest

from helper import PATHS, SKIP_REASONS, Path, reasons
from verify.logic import truth
from verify.logic.flags import alone, argument_flags, flag_names, flag_tables, helper_skips

TABLES = flag_tables()
AF, RS, DP, FI = (TABLES[flag] for flag in ("AF", "RS", "DP", "FI"))
BOTH = frozenset({"AF", "RS"})


def test_flags_stand_in_the_order_of_the_list() -> None:
    assert flag_names() == tuple(reason.flag for reason in SKIP_REASONS) == tuple(TABLES)


def test_forward_receives_two_of_them() -> None:
    assert argument_flags() == BOTH


@pytest.mark.parametrize("flag", flag_names())
def test_the_row_of_a_flag_alone(flag: str) -> None:
    others = [TABLES[other] for other in flag_names() if other != flag]
    assert TABLES[flag] >> alone(flag) & 1
    assert not any(other >> alone(flag) & 1 for other in others)


@pytest.mark.parametrize(
    ("path", "handed", "table"),
    [
        ("TP", BOTH, AF | RS | DP | FI),
        ("EP", BOTH, AF | RS | DP),
        ("TP", frozenset({"RS"}), RS | DP | FI),
        ("EP", frozenset({"AF"}), AF | DP),
        ("TP", frozenset(), DP | FI),
        ("EP", frozenset(), DP),
    ],
)
def test_the_helper_as_a_table(path: Path, handed: frozenset[str], table: int) -> None:
    assert helper_skips(path=path, handed=handed) == table


def test_the_table_is_asked_of_the_helper_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Corrupting the predicate changes the table: it is not a second copy of the rules."""
    monkeypatch.setattr(reasons, "any_reason", lambda *, path, values: values["use_reduce_scatter"])
    for path in PATHS:
        assert helper_skips(path=path, handed=BOTH) == RS


def test_a_shorter_list_has_fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasons, "SKIP_REASONS", SKIP_REASONS[:3])
    assert flag_names() == ("AF", "RS", "DP")
    assert helper_skips(path="TP", handed=BOTH) == truth.full(3) ^ 1
