"""An option with nothing to act on is refused."""

from collections.abc import Mapping
from typing import Any

import pytest

from verify.checks.scan.server.idle import Idle
from verify.engines.sglang.library import LIBRARY
from verify.interpreter.index import Index

MANAGER = """
class Manager:
    def setup(self, model):
        found = self._experts(model)
        if not found:
            raise RuntimeError("no experts in any layer")

    @staticmethod
    def _experts(model):
        return [m for m in model.modules()
                if isinstance(m, FusedMoE)]
"""
BLOCK = """
class Block:
    def __init__(self, config):
        self.experts = FusedMoE(num_experts=config.n)


class Base:
    def __init__(self, config):
        self.mlp = Block(config)


class Own(Base):
    def __init__(self, config):
        super().__init__(config)


class Handed(Base):
    def __init__(self, config):
        nn.Module.__init__(self)
        self.mlp = shared_bank(config)
"""
DEFAULTS = {"dwdp_size": 1, "tp_size": 1}


@pytest.mark.parametrize(
    ("layer", "manager", "asked", "refused"),
    [
        ("Handed", MANAGER, {"dwdp_size": 4}, True),
        ("Own", MANAGER, {"dwdp_size": 4}, False),
        ("Handed", MANAGER, {"tp_size": 4}, False),
        ("Handed", MANAGER.replace("raise", "print"), {"dwdp_size": 4}, False),
        ("Handed", "", {"dwdp_size": 4}, False),
    ],
)
def test_an_option_with_nothing_to_act_on_is_refused(
    source: Any, layer: str, manager: str, asked: Mapping[str, int], refused: bool
) -> None:
    """The experts are handed to the layer: what looks for them in it finds none."""
    with source(BLOCK, library={"layers/moe/dwdp/manager.py": manager}) as tree:
        index = Index(tree, LIBRARY)
        module = index.module("sglang/srt/models/sample.py")
        cls = module.lookup(layer)
        found = Idle(index).nothing_to_act_on(cls, asked, DEFAULTS)
    assert str(found) == ("sglang/srt/layers/moe/dwdp/manager.py:6" if refused else "None")
