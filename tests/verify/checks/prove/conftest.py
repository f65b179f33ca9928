"""The judge on real tensors, and a release, for tests that compare with them."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from verify.engines.ledger import Release


@pytest.fixture(scope="session")
def real_tensors() -> ModuleType:
    path = Path(__file__).with_name("real_tensors.py")
    spec = importlib.util.spec_from_file_location("ledger_real_tensors", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _RefusesHybrid:
    """As flashinfer's route in 0.5.11, but not where both groups have several ranks."""

    def fuses(self, deployment, mode, *, last):
        del mode
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
