"""Stand-ins against a plain torch reference; mocks that raise when they are reached."""

import importlib
import sys
from typing import NamedTuple

import pytest

torch = pytest.importorskip("torch")
from verify.engines.sglang.serving.inside import standins, stubs  # noqa: E402

HELD = 2  # experts of this rank


class TopK(NamedTuple):
    topk_weights: torch.Tensor
    topk_ids: torch.Tensor
    router_logits: torch.Tensor


class Layer:
    w13_weight = torch.tensor([[2.0], [3.0]])


def native(layer, x, topk, config):
    """What the engine's does: every id must be one that is held."""
    weights, ids, _ = topk
    assert bool(((ids >= 0) & (ids < HELD)).all())
    return (weights * layer.w13_weight[ids, 0]).sum(1, keepdim=True) * x


@pytest.mark.parametrize("foreign", [-1, HELD, 7])
def test_an_expert_of_another_rank_adds_zero(foreign):
    x = torch.tensor([[1.0, 2.0], [10.0, 20.0]])
    topk = TopK(
        torch.tensor([[0.25, 0.75], [0.5, 0.5]]),
        torch.tensor([[0, foreign], [foreign, 1]]),
        torch.zeros(2),
    )
    wanted = torch.tensor([[0.25 * 2.0], [0.5 * 3.0]]) * x
    assert torch.equal(standins.native_moe(native)(Layer, x, topk, None), wanted)
    with pytest.raises(AssertionError):
        native(Layer, x, topk, None)


def test_an_empty_batch_is_empty():
    x = torch.zeros(0, 2)
    assert standins.native_moe(native)(Layer, x, None, None).shape == (0, 2)


def test_a_mock_is_importable_and_loud(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    stubs.install()
    try:
        module = importlib.import_module("deep_ep.utils")
        assert module.Buffer.KIND == "deep_ep.utils.Buffer.KIND"
        with pytest.raises(stubs.StubReachedError, match=r"deep_ep\.utils\.combine"):
            module.combine(1, 2)
    finally:
        for name in [name for name in sys.modules if name.startswith("deep_ep")]:
            del sys.modules[name]
