"""A layer declares what it builds."""

from collections.abc import Callable
from typing import Any

import pytest

from verify.checks.scan.scan import ScanResult

CHOOSES = """
        if layer_id >= config.first:
            self.mlp = Block(config)
        else:
            self.mlp = Mlp(config)
        self.modes = LayerScatterModes.init_new(
            layer_id=layer_id, is_layer_sparse={declared}, is_previous_layer_sparse=True
        )
"""
MLP = """
class Mlp:
    def __init__(self, config):
        self.down = RowParallelLinear(1, 1)

    def forward(self, x, batch=None, should_allreduce_fusion=False, use_reduce_scatter=False):
        skip = should_allreduce_fusion or use_reduce_scatter
        return self.down(x, skip_all_reduce=skip)[0]
"""
ALWAYS = "        self.mlp = Block(config)\n"
RULE = "flag-misbound"


def found(scanned: Callable[..., ScanResult], sample: Any, body: str) -> bool:
    layer = sample.changed(sample.layer, ALWAYS, body)
    findings = scanned(MLP, sample.block, layer).findings
    return any(one.rule == RULE and "constant" in one.message for one in findings)


@pytest.mark.parametrize("declared", ["True", "False"])
def test_layer_declared_outright(
    scanned: Callable[..., ScanResult], sample: Any, declared: str
) -> None:
    assert found(scanned, sample, CHOOSES.format(declared=declared))


def test_layer_declared_as_it_is_built(scanned: Callable[..., ScanResult], sample: Any) -> None:
    assert not found(scanned, sample, CHOOSES.format(declared="layer_id >= config.first"))


def test_layer_that_has_one_kind_of_mlp(scanned: Callable[..., ScanResult], sample: Any) -> None:
    one = ALWAYS + "        self.modes = LayerScatterModes.init_new(is_layer_sparse=True)\n"
    assert not found(scanned, sample, one)
