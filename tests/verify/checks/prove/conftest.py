"""The judge on real tensors, a release to compare with, and layers that a sample has not."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from verify.engines.ledger import Release

EXPERTS = """
class FusedMoE:
    def __init__(self, config, reduce_results=False):
        self.reduce_results = reduce_results

    def forward(self, x):
        return x
"""
LINEAR = """
class RowParallelLinear:
    def __init__(self, n_in, n_out, reduce_results=True, tp_size=None):
        self.reduce_results = reduce_results

    def forward(self, x):
        return x, None
"""


@pytest.fixture(scope="session")
def write_layers():
    """Give a sample's `srt` folder the engine's experts and linear layers, by their names."""

    def write(srt: Path) -> None:
        (srt / "layers/moe/fused_moe.py").write_text(EXPERTS)
        (srt / "layers/linear.py").write_text(LINEAR)

    return write


@pytest.fixture(scope="session")
def real_tensors() -> ModuleType:
    path = Path(__file__).with_name("real_tensors.py")
    spec = importlib.util.spec_from_file_location("ledger_real_tensors", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _RefusesHybrid:
    """As flashinfer's route in 0.5.11, but not where both groups have several ranks."""

    def fuses(self, deployment, mode, *, last, scattered=False):
        del mode, scattered
        config = deployment.config
        hybrid = config.ep_size > 1 and config.moe_tp_size > 1
        elsewhere = config.enable_dp_attention or deployment.shares_tokens_across_cp
        return deployment.fusion != "off" and not (hybrid or elsewhere or last)

    def scatters(self, deployment, mode, *, allowed, by_size):
        del mode, by_size
        return allowed and deployment.padding == "max_len"


@pytest.fixture(scope="session")
def refuses_hybrid() -> Release:
    return Release(name="0.5.11", answers=_RefusesHybrid())
