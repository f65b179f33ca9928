"""The interpreter by itself, on an engine that is nobody's."""

from textwrap import dedent, indent

import pytest

from tests.verify.interpreter.toy import GROUP, TOY
from verify.interpreter.index import Index
from verify.interpreter.machine import Machine
from verify.interpreter.state import MAX_STEPS, Frame, State, UnresolvedError, started
from verify.interpreter.values import Text, Value, parts_of
from verify.logic.diagrams import TRUE
from verify.source.source import Package, SourceTree

MODEL = """from toy.layers.all import Split, helper


class Model:
    def __init__(self):
        self.split = Split()

    def forward(self, x, n):
"""


def run(body: str, *, helper: str = "pass", model: str = MODEL) -> tuple[State, Value]:
    """Run a model's `forward(self, x, n)`; `self.split` leaves a sum, `helper(x)` is a layer's."""
    files = {
        "toy/models/one.py": model + indent(dedent(body), " " * 8),
        "toy/layers/all.py": "class Split:\n    pass\n\n\nclass Kept:\n    pass\n\n\n"
        f"def helper(x):\n    {helper}\n",
    }
    package = Package(name="toy", inside="models")
    tree = SourceTree(
        package=package,
        version="1",
        paths=tuple(sorted(files)),
        _load=lambda at: files[at].encode(),
    )
    state = started(Index(tree, TOY))
    module = state.index.module("toy/models/one.py")
    assert module is not None
    state.enter(Frame(module, "<test>", None, TRUE))
    machine = Machine(state)
    model = machine.call(machine.name("Model"), (), {})
    return state, machine.call(model, (Text("x"), Text("n")), {})


def owed(body: str, *, helper: str = "pass", model: str = MODEL) -> str:
    """When what `forward` returns still holds a sum that nobody completed, as text."""
    state, value = run(body, helper=helper, model=model)
    logic = state.logic
    left = (
        logic.all_of(state.live, part.present, logic.negation(logic.any_of(*part.reduced.values())))
        for part in parts_of(logic, value)
    )
    return logic.text(logic.any_of(*left))


SUMS = {
    "nobody sums": ("return self.split(x)", "True"),
    "a collective": ("return add_up(self.split(x))", "False"),
    "a group's method": ("return the_group.add(self.split(x))", "False"),
    "a group of no known name": ("return other.add(self.split(x))", "True"),
    "a kernel in place": ("y = self.split(x)\nadd_up_(y)\nreturn y", "False"),
    "a question about a kernel": ("y = self.split(x)\ncan_add_up_(y)\nreturn y", "True"),
    "a guard": ("y = self.split(x)\nif not leave_it():\n    y = add_up(y)\nreturn y", "LATER"),
    "a size": (
        "y = self.split(x)\nif how_many() > 1:\n    y = add_up(y)\nreturn y",
        "not (size > 1)",
    ),
    "an early return": (
        "y = self.split(x)\nif leave_it():\n    return y\nreturn add_up(y)",
        "LATER",
    ),
    "what is published": (
        "with current().within(later=leave_it()):\n    y = self.split(x)\n"
        "    return y if current().later else add_up(y)",
        "LATER",
    ),
    "a branch that raises": (
        "y = self.split(x)\nif leave_it():\n    raise ValueError\nreturn y",
        "not LATER",
    ),
    "a match": (
        "y = self.split(x)\nmatch n:\n    case 1:\n        return add_up(y)\n    case _:\n"
        "        return y",
        "not (n matches 1)",
    ),
    "a call that is not followed": ("return unknown(self.split(x))", "True"),
    "one turn for all": ("y = self.split(x)\nfor _ in n:\n    y = add_up(y)\nreturn y", "False"),
    "no handler runs": (
        "y = self.split(x)\ntry:\n    z = y\nexcept Error:\n    z = add_up(y)\nreturn z",
        "True",
    ),
}


@pytest.mark.parametrize(("body", "expected"), SUMS.values(), ids=SUMS)
def test_a_sum_is_owed(body: str, expected: str) -> None:
    assert owed(body) == expected


def test_a_layers_function_is_followed_where_it_is_worth_it() -> None:
    assert owed("return helper(self.split(x))", helper="return add_up(x)") == "False"
    # nothing in it says that it sums: what goes in may come out
    assert owed("return helper(self.split(x))", helper="return zeros()") == "True"


def test_a_mark_hands_the_sum_on() -> None:
    state, value = run("y = self.split(x)\ny.left_to_the_next = leave_it()\nreturn y")
    (sink,) = state.sinks
    assert (sink.kind, sink.sums, state.logic.text(sink.when)) == ("fused norm", TRUE, "LATER")
    assert [state.logic.text(p.present) for p in parts_of(state.logic, value)] == ["not LATER"]


def test_a_reduction_knows_its_place_and_condition() -> None:
    state, _ = run("y = self.split(x)\nif leave_it():\n    y = add_up(y)\nreturn y")
    (reduction,) = state.reductions
    place = reduction.place
    assert (place.file, place.cls, place.method) == ("toy/models/one.py", "Model", "forward")
    assert (place.collective, place.axes) == ("add_up", GROUP)
    assert state.logic.text(reduction.when) == "LATER"


def test_what_never_holds_is_never_run() -> None:
    state, _ = run("if False:\n    add_up(x)\nreturn x")
    assert state.reductions == []


def test_a_call_that_comes_back_to_itself_settles() -> None:
    body = "if n > 5:\n    return self.forward(x, n)\nreturn add_up(self.split(x))"
    assert owed(body) == "False"
    assert owed(body.replace("add_up(self.split(x))", "self.split(x)")) == "True"


def test_a_run_without_end_is_given_up() -> None:
    with pytest.raises(UnresolvedError, match=f"more than {MAX_STEPS} steps"):
        run("\n".join(["x = f(x)"] * MAX_STEPS))


# each branch fills what it finds empty: it is there, and empty, on the other one too
FILLS = """
if n:
    if self.kept is None:
        self.kept = n
    return self.split(x)
if self.kept is None:
    self.kept = n
return self.split(x)
"""
EMPTY = {
    "a buffer": MODEL.replace(
        "self.split = Split()", 'self.split = Split()\n        self.register_buffer("kept", None)'
    ),
    "of the class": MODEL.replace("class Model:\n", "class Model:\n    kept = None\n\n"),
}


@pytest.mark.parametrize("model", EMPTY.values(), ids=EMPTY)
def test_what_is_empty_at_first_is_read_on_every_branch(model: str) -> None:
    assert owed(FILLS, model=model) == "True"


def test_a_branch_that_reads_what_nobody_set_ends() -> None:
    assert owed("if n:\n    self.kept = n\nself.kept\nreturn self.split(x)") == "n"


ALIASED = MODEL.replace(
    "class Model:\n",
    """def halves(x):
    return x, add_up(x)


def whole(self, x):
    return add_up(x)


class Model:
    halves = staticmethod(halves)
    whole = whole

""",
)


@pytest.mark.parametrize(
    ("call", "left"), [("self.halves(y)[0]", "True"), ("self.halves(y)[1]", "False")]
)
def test_a_function_that_a_class_has_under_a_name_is_followed(call: str, left: str) -> None:
    assert owed(f"y = self.split(x)\nreturn {call}", model=ALIASED) == left


def test_a_function_that_a_class_has_is_bound() -> None:
    assert owed("return self.whole(self.split(x))", model=ALIASED) == "False"
