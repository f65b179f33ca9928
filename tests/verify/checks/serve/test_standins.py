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


def _rank(rank, store, results):
    import torch.distributed as dist  # noqa: PLC0415 (in a process of its own)

    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)

    class Communicator:
        group = dist.group.WORLD

    sizes = [1, 3]
    whole = torch.arange(8.0).view(4, 2) * (rank + 1)
    part = torch.empty(sizes[rank], 2)
    standins._reduce_scatter(Communicator(), part, whole, sizes=sizes)
    gathered = torch.empty(4, 2)
    standins._all_gather(Communicator(), gathered, part, sizes=sizes)
    results.put((rank, part.tolist(), gathered.tolist()))
    dist.destroy_process_group()


def test_uneven_collectives_over_gloo_are_what_nccl_s_would_be(tmp_path):
    context = torch.multiprocessing.get_context("fork")
    results = context.Queue()
    ranks = [
        context.Process(target=_rank, args=(rank, tmp_path / "store", results)) for rank in (0, 1)
    ]
    for process in ranks:
        process.start()
    answers = sorted(results.get(timeout=60) for _ in ranks)
    for process in ranks:
        process.join(timeout=30)
    total = torch.arange(8.0).view(4, 2) * 3
    assert answers == [
        (0, total[:1].tolist(), total.tolist()),
        (1, total[1:].tolist(), total.tolist()),
    ]
