"""What a witness keeps: values as they were, layers' two halves as one sum, by step and call."""

import pytest

torch = pytest.importorskip("torch")
from verify.engines.inside.modules import Running, pattern  # noqa: E402
from verify.engines.inside.witness import Witness  # noqa: E402


class Block(torch.nn.Module):
    def forward(self, hidden, residual):
        hidden += 1  # in place, as a collective does
        return hidden, residual


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block()

    def forward(self, hidden, residual, *, positions):
        self.block(hidden, residual)
        return self.block(hidden, residual)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([Layer()])

    def forward(self, hidden, residual):
        return self.layers[0](hidden, residual, positions=torch.zeros(2, 2, 2))


@pytest.fixture
def calls(tmp_path):
    running, model = Running(), Model()
    witness = Witness(running, step=lambda: "prefill")
    running.attach(model)
    model(torch.zeros(2, 3), torch.ones(2, 3))  # nobody listens yet
    witness.active = True
    model(torch.zeros(2, 3), torch.ones(2, 3))
    witness.take(tmp_path / "witness" / "rank0.pt")
    assert running.stack == []
    return torch.load(tmp_path / "witness" / "rank0.pt")


def test_calls_come_in_the_order_in_which_they_end(calls):
    assert [(each["name"], each["call"]) for each in calls] == [
        ("layers.0.block", 0),
        ("layers.0.block", 1),
        ("layers.0", 0),
    ]


def test_values_are_those_before_and_after_the_call_and_halves_are_summed(calls):
    inputs = [[value.unique().tolist() for value in each["inputs"]] for each in calls]
    outputs = [[value.unique().tolist() for value in each["outputs"]] for each in calls]
    assert inputs == [[[1.0]], [[2.0]], [[1.0]]]
    assert outputs == [[[2.0]], [[3.0]], [[3.0]]]


def test_floats_that_are_not_rows_are_said(calls):
    assert [each["other"] for each in calls] == [False, False, True]


def test_layers_and_experts_have_one_pattern():
    assert pattern("model.layers.3.mlp.experts.7") == "model.layers.*.mlp.experts.*"
    assert pattern("layer4.norm") == "layer4.norm"


@pytest.mark.parametrize(
    ("shape", "kept"), [((2, 3), True), ((1, 2, 3), True), ((2, 2, 3), False), ((3,), False)]
)
def test_a_batch_of_one_is_a_table_as_well(tmp_path, shape, kept):
    running, model = Running(), torch.nn.Sequential(torch.nn.Identity())
    witness = Witness(running, step=lambda: "prefill")
    running.attach(model)
    witness.active = True
    model(torch.ones(shape))
    witness.take(tmp_path / "witness" / "rank0.pt")
    (call,) = torch.load(tmp_path / "witness" / "rank0.pt")
    assert [tuple(each.shape) for each in call["inputs"]] == ([(2, 3)] if kept else [])
    assert call["other"] is not kept
