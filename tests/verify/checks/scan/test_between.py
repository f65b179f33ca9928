"""A model that adds to what a layer returned, before the next layer has completed its sum."""

from collections.abc import Callable
from typing import Any

import pytest

from verify.checks.scan.scan import ScanResult

MODEL = """
class Model:
    def __init__(self, config):
        self.layers = make_layers(config.n, lambda idx: Layer(config, idx))

    def forward(self, ids, positions, batch, pictures):
        hidden_states, residual = ids, None
        for number, layer in enumerate(self.layers):
            hidden_states, residual = layer(positions, hidden_states, batch, residual)
            # here
        return hidden_states
"""


def rules(scanned: Callable[..., ScanResult], sample: Any, *lines: str, layer: str = "") -> object:
    inside = "\n            ".join(lines)
    model = MODEL.replace("# here", inside)
    found = scanned(sample.block, layer or sample.layer, model).findings
    return [(one.rule, one.row, one.cls, one.method) for one in found]


WRONG = [("replicated-addend", "1000", "Model", "forward")]


@pytest.mark.parametrize(
    "lines",
    [
        ("hidden_states.add_(pictures[number])",),
        ("if number < 3:", "    hidden_states += pictures[number]"),
        ("hidden_states = hidden_states + pictures[number]",),
        ("hidden_states = pictures[number] + hidden_states",),
        ("hidden_states = hidden_states.add(pictures[number])",),
    ],
)
def test_what_is_added_to_a_sum_that_is_owed(
    scanned: Callable[..., ScanResult], sample: Any, lines: tuple[str, ...]
) -> None:
    assert rules(scanned, sample, *lines) == WRONG


@pytest.mark.parametrize(
    "lines",
    [
        ("residual.add_(pictures[number])",),
        ("residual = residual + hidden_states",),
        ("pictures.append(hidden_states + residual)",),
        (
            "hidden_states = tensor_model_parallel_all_reduce(hidden_states)",
            "hidden_states.add_(pictures[number])",
        ),
        ("hidden_states = add_to_output(hidden_states, pictures[number])",),
    ],
)
def test_what_is_added_elsewhere_or_after_the_sum(
    scanned: Callable[..., ScanResult], sample: Any, lines: tuple[str, ...]
) -> None:
    assert rules(scanned, sample, *lines) == []


def test_a_layer_that_never_fuses_owes_nothing(
    scanned: Callable[..., ScanResult], sample: Any
) -> None:
    start = sample.layer.index("        fuse = ")
    end = sample.layer.index("        scatter = ")
    layer = sample.layer[:start] + "        fuse = False\n" + sample.layer[end:]
    assert rules(scanned, sample, "hidden_states.add_(pictures[number])", layer=layer) == []


def test_a_layer_that_is_taken_out_of_its_list_and_has_another_name(
    scanned: Callable[..., ScanResult], sample: Any
) -> None:
    model = """
class Model:
    def __init__(self, config):
        self.storeys = make_layers(config.n, lambda idx: Layer(config, idx))

    def forward(self, ids, positions, batch, pictures):
        for number in range(len(self.storeys)):
            storey = self.storeys[number]
            ids, rest = storey(positions, ids, batch, None)
            ids += pictures
        return ids
"""
    (found,) = scanned(sample.block, sample.layer, model).findings
    assert (found.rule, found.cls) == ("replicated-addend", "Model")


def test_a_model_that_is_not_python_is_passed_over(scanned, sample):
    """Its file is not analysed, and the tool does not end with an error of its own."""
    head = (
        "\n\nclass Model:\n    def __init__(self, config):\n        self.first = Layer(config, 0)\n"
    )
    broken = f"{head}\n    def forward(self, x):\n        x = '\0'\n        return x\n"
    (line,) = scanned(sample.block, sample.layer, broken).unread
    assert "not Python" in line
