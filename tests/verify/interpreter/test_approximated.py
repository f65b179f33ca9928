"""Each step that is not exact is noted where a sum that is owed goes through it, else not."""

import pytest

from tests.verify.interpreter.test_machine import MODEL, run
from verify.interpreter.state import CALL, EFFECT, HANDLER, LOOP, OBJECT, TURN

KEPT = MODEL.replace("import Split, helper", "import Kept, Split, helper")
# kind, number of the line in the body, a body that takes the step with a sum that is owed
STEPS = {
    "for": (LOOP, 2, "y = x\nfor i in n:\n    y = self.split(x)\nreturn y"),
    "while": (LOOP, 2, "y = x\nwhile n:\n    y = self.split(x)\nreturn y"),
    "return inside a loop": (LOOP, 1, "for i in n:\n    return self.split(x)\nreturn x"),
    "break": (
        TURN,
        5,
        "y = x\nfor i in n:\n    y = self.split(x)\n    if i:\n        break\nreturn y",
    ),
    "continue": (
        TURN,
        5,
        "y = x\nfor i in n:\n    y = self.split(x)\n    if i:\n        continue\nreturn y",
    ),
    "except": (
        HANDLER,
        2,
        "y = x\ntry:\n    y = self.split(x)\nexcept ValueError:\n    y = add_up(x)\nreturn y",
    ),
    "a call": (CALL, 2, "y = self.split(x)\nreturn kernel(y)"),
    "a tensor's method": (CALL, 2, "y = self.split(x)\nreturn y.cumsum(0)"),
    "a list": (EFFECT, 3, "y = self.split(x)\nz = [x]\nz.extend(y)\nreturn z"),
    "a kernel in place": (EFFECT, 2, "y = self.split(x)\nkernel(y, x)\nreturn x"),
    "setattr": (EFFECT, 2, "y = self.split(x)\nsetattr(self, 'y', y)\nreturn self.y"),
    "an object": (OBJECT, 2, "y = self.split(x)\nreturn Kept(y)"),
}
# the same steps with no sum in them, or with nothing left out
EXACT = {
    "for": "y = self.split(x)\nfor i in n:\n    z = i\nreturn y",
    "break": "y = self.split(x)\nfor i in n:\n    if i:\n        break\nreturn y",
    "an except that only raises": (
        "try:\n    y = self.split(x)\nexcept ValueError as error:\n    raise TypeError from error\n"
        "return y"
    ),
    "except": "y = self.split(x)\ntry:\n    z = n\nexcept ValueError:\n    z = 0\nreturn y",
    "a call": "y = self.split(x)\nz = kernel(x)\nreturn y",
    "a list": "y = self.split(x)\nz = [x]\nz.extend(x)\nreturn y",
    "an object": "y = self.split(x)\nz = Kept(x)\nreturn y",
    "a helper that is followed": "y = self.split(x)\nreturn helper(y)",
}
FIRST = MODEL.count("\n")


def steps(body):
    state, _ = run(body, helper="return add_up(x)", model=KEPT)
    assert all(step.file == "toy/models/one.py" for step in state.approximated)
    return {(step.kind, step.line - FIRST) for step in state.approximated}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_with_a_sum_is_noted_once(name):
    kind, line, body = STEPS[name]
    # a turn that ends early is a loop's, too
    assert steps(body) == {(kind, line), *([(LOOP, 2)] if kind is TURN else [])}


@pytest.mark.parametrize("name", EXACT)
def test_a_step_without_one_is_not(name):
    assert steps(EXACT[name]) == set()


@pytest.mark.parametrize("name", STEPS)
def test_the_same_step_before_any_sum_is_not_noted(name):
    _, _, body = STEPS[name]
    assert steps(body.replace("self.split(x)", "x")) == set()
