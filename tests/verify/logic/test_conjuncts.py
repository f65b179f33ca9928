"""Guards for reading: cut between conditions, and only what differs of two."""

import pytest

from verify.logic.conjuncts import conjuncts, difference, shortened

LONG = "not AF and (tp_size > 1) and ((a and b) or c[d and e])"


@pytest.mark.parametrize(
    ("guard", "parts"),
    [
        ("True", ("True",)),
        (LONG, ("not AF", "(tp_size > 1)", "((a and b) or c[d and e])")),
        ("not AF and x or y", ("not AF and x or y",)),
        ("(a and b) if c else d", ("(a and b) if c else d",)),
        ("a) and (b", ("a) and (b",)),
        ("", ("",)),
    ],
)
def test_the_conditions_that_hold_together(guard, parts):
    assert conjuncts(guard) == parts


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (len(LONG), LONG),
        (len(LONG) - 1, "not AF and (tp_size > 1) and ..."),
        (10, "not AF and ..."),
        (5, "no..."),
    ],
)
def test_a_guard_is_cut_between_conditions(width, text):
    assert shortened(LONG, width=width) == text


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("not AF", "not AF and not DP", ("...", "... and not DP")),
        ("not AF and x", "not RS and x", ("... and not AF", "... and not RS")),
        ("a or b", "c", ("a or b", "c")),
        ("a and b", "b and a", ("...", "...")),
    ],
)
def test_of_two_guards_only_what_differs_is_told(old, new, told):
    assert difference(old, new, width=60) == told
