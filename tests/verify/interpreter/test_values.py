"""Partial sums meet: which are one, and what is then known of their reductions."""

import pytest

from verify.interpreter.values import Origin, Part, Place, Tensor, merge, union
from verify.logic.diagrams import FALSE, TRUE, Logic

HERE = Place(file="f.py", line=1, column=0, cls=None, method="f", collective="g", axes=("TP",))
THERE = Place(file="f.py", line=2, column=0, cls=None, method="f", collective="g", axes=("TP",))
LAYER = Origin(place=HERE, axes=("TP",), arrives=FALSE, born=True, told=())
OTHER = Origin(place=HERE, axes=("TP",), arrives=FALSE, born=True, told=("another",))


@pytest.fixture
def logic() -> Logic:
    return Logic(("a", "b"))


def test_two_births_of_one_origin_are_one_part(logic: Logic) -> None:
    a, b = logic.atom("a"), logic.atom("b")
    (part,) = union(logic, (Part(LAYER, a),), (Part(LAYER, b),))
    assert part.present == logic.either(a, b)


def test_other_origins_stay_apart(logic: Logic) -> None:
    assert len(union(logic, (Part(LAYER, TRUE),), (Part(OTHER, TRUE),))) == 2


def test_a_birth_that_was_summed_up_stays_apart_from_one_that_was_not(logic: Logic) -> None:
    summed, owed = Part(LAYER, TRUE, {THERE: TRUE}), Part(LAYER, TRUE)
    assert {len(part.reduced) for part in union(logic, (summed,), (owed,))} == {0, 1}
    merged = merge(logic, logic.atom("a"), Tensor((summed,)), Tensor((owed,)))
    assert isinstance(merged, Tensor)
    assert [(part.present, len(part.reduced)) for part in merged.parts] == [
        (logic.atom("a"), 1),
        (logic.negation(logic.atom("a")), 0),
    ]


def test_one_birth_summed_up_on_one_path_only(logic: Logic) -> None:
    a = logic.atom("a")
    owed = Part(LAYER, TRUE)
    summed = Part(LAYER, TRUE, {THERE: TRUE}, owed.birth)
    merged = merge(logic, a, Tensor((summed,)), Tensor((owed,)))
    assert isinstance(merged, Tensor)
    assert [(part.present, dict(part.reduced)) for part in merged.parts] == [(TRUE, {THERE: a})]


def test_alternatives_of_one_origin_need_no_condition_together(logic: Logic) -> None:
    sides = (Tensor((Part(LAYER, TRUE),)), Tensor((Part(LAYER, TRUE),)))
    merged = merge(logic, logic.atom("a"), *sides)
    assert isinstance(merged, Tensor)
    assert [part.present for part in merged.parts] == [TRUE]
