"""Kernels in plain torch against a reference of their own."""

import sys
import types

import pytest

torch = pytest.importorskip("torch")
from verify.engines.sglang.serving.inside import kernels  # noqa: E402


def test_a_product_of_another_type():
    a, b = torch.tensor([[1.0, 2.0]]).bfloat16(), torch.tensor([[3.0], [0.5]]).bfloat16()
    mm = kernels.product(torch.mm)
    assert mm(a, b, out_dtype=torch.float32).dtype == torch.float32
    assert mm(a, b).dtype == torch.bfloat16
    assert mm(a, b, out_dtype=torch.float32).tolist() == [[4.0]]


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("rows", [1, 3, 4])
def test_a_norm_over_several_ranks_parts_is_the_whole_row_s(ranks, rows):
    draw = torch.Generator().manual_seed(0)
    whole = [torch.randn(rows, size, generator=draw) for size in (8, 4)]
    weights = [torch.randn(size, generator=draw) for size in (8, 4)]
    wanted = [
        torch.nn.functional.rms_norm(x, (x.shape[1],), w, eps=1e-5)
        for x, w in zip(whole, weights, strict=True)
    ]
    parts = [x.chunk(ranks, -1) for x in whole]
    total = sum(kernels.squares(parts[0][rank], parts[1][rank]) for rank in range(ranks))
    assert len(total) % 4 == 0
    assert len(total) >= 2 * rows
    for rank in range(ranks):
        mine = [w.chunk(ranks)[rank] for w in weights]
        found = kernels.scaled(parts[0][rank], parts[1][rank], *mine, total, ranks, 1e-5)
        for one, many in zip(wanted, found, strict=True):
            torch.testing.assert_close(one.chunk(ranks, -1)[rank], many)
    alone = kernels.scaled(parts[0][0], parts[1][0], *mine, 2 * total, ranks, 1e-5)
    assert not torch.allclose(alone[0], wanted[0].chunk(ranks, -1)[0]), "a sum taken twice shows"


def test_latent_attention_is_the_absorbed_form(monkeypatch):
    registered = {}
    handlers = types.ModuleType("handlers")
    handlers._dispatch_mla_subtype = lambda attention, batch: "absorbed"
    handlers.AttentionBackendRegistry = types.SimpleNamespace(register=registered.__setitem__)
    name = "sglang.srt.models.deepseek_common.attention_backend_handler"
    monkeypatch.setitem(sys.modules, name, handlers)
    monkeypatch.setattr(kernels, "_module", sys.modules.get)
    monkeypatch.setattr(torch, "mm", torch.mm)
    kernels.install()
    assert registered["torch_native"](None, None) == "absorbed"
