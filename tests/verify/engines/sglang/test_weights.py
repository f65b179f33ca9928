"""Weights made from names: every layout holds slices of one model, or says where not."""

import json

import pytest
import torch

from verify.engines.sglang.serving.inside import weights

HIDDEN, INNER, EXPERTS = 8, 16, 4


class Rows(torch.nn.Module):
    """A projection of which every rank has some output rows, as the engine's have."""

    def __init__(self, rank, ranks):
        super().__init__()
        self.rank = rank
        self.weight = torch.nn.Parameter(torch.zeros(INNER // ranks, HIDDEN), requires_grad=False)
        self.weight.weight_loader = self.load

    def load(self, parameter, loaded):
        rows = parameter.shape[0]
        parameter.data.copy_(loaded.narrow(0, self.rank * rows, rows))


class QKVParallelLinear(torch.nn.Module):
    head_size, total_num_heads, total_num_kv_heads = 2, 4, 2

    def __init__(self, rank, ranks):
        super().__init__()
        self.rank = rank
        self.weight = torch.nn.Parameter(torch.zeros(16 // ranks, HIDDEN), requires_grad=False)
        self.weight.output_dim = 0
        self.weight.weight_loader = self.load

    def load(self, parameter, loaded, shard):
        sizes = {"q": 8, "k": 4, "v": 4}
        ranks = 16 // parameter.shape[0]
        at = {"q": 0, "k": 8 // ranks, "v": 12 // ranks}[shard]
        n = sizes[shard] // ranks
        parameter.data[at : at + n].copy_(loaded.narrow(0, self.rank * n, n))


class FusedMoE(torch.nn.Module):
    num_experts = EXPERTS

    def __init__(self, rank, ranks):
        super().__init__()
        self.first, self.here = rank * (EXPERTS // ranks), EXPERTS // ranks
        self.moe_runner_config = None
        for name, shape in (("w13_weight", (2 * INNER, HIDDEN)), ("w2_weight", (HIDDEN, INNER))):
            parameter = torch.nn.Parameter(torch.zeros(self.here, *shape), requires_grad=False)
            parameter.weight_loader = self.load
            setattr(self, name, parameter)

    def load(self, parameter, loaded, name, shard, expert):
        local = expert - self.first
        if not 0 <= local < self.here:
            return
        at = {"w1": 0, "w3": INNER, "w2": 0}[shard]
        parameter.data[local, at : at + loaded.shape[0]].copy_(loaded)


class Model(torch.nn.Module):
    def __init__(self, rank=0, ranks=1):
        super().__init__()
        self.qkv_proj = QKVParallelLinear(rank, ranks)
        self.up_proj = Rows(rank, ranks)
        self.experts = FusedMoE(rank, ranks)
        self.gate = torch.nn.Linear(HIDDEN, EXPERTS)
        self.input_layernorm = torch.nn.LayerNorm(HIDDEN)
        self.register_buffer("e_score_correction_bias", torch.zeros(EXPERTS))
        self.register_buffer("inv_freq", torch.arange(4.0))


def filled(monkeypatch, shapes, *, rank=0, ranks=1, seed=0, model=None):
    monkeypatch.setattr(weights, "_world", lambda: ranks)
    model = model or Model(rank, ranks)
    weights.fill(model, seed=seed, shapes=shapes)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def joined(ranks):
    """The one-rank tensors, put together from what two ranks hold."""
    q, k, v = (torch.cat([r["qkv_proj.weight"][a:b] for r in ranks]) for a, b in QKV)
    whole = dict(ranks[0])
    for name in ("up_proj.weight", "experts.w13_weight", "experts.w2_weight"):
        whole[name] = torch.cat([rank[name] for rank in ranks])
    return whole | {"qkv_proj.weight": torch.cat([q, k, v])}


QKV = ((0, 4), (4, 6), (6, 8))


def test_two_ranks_hold_slices_of_the_one_rank_model(monkeypatch, tmp_path):
    shapes = tmp_path / "shapes.json"
    alone = filled(monkeypatch, shapes)
    ranks = [filled(monkeypatch, shapes, rank=rank, ranks=2) for rank in range(2)]
    whole = joined(ranks)
    assert whole.keys() == alone.keys()
    for name, tensor in alone.items():
        assert torch.equal(whole[name], tensor), name
    assert weights.LAST_RESORT == []


@pytest.mark.parametrize("name", ["qkv_proj.weight", "up_proj.weight", "experts.w2_weight"])
def test_a_corrupted_slice_is_not_the_one_rank_model(monkeypatch, tmp_path, name):
    shapes = tmp_path / "shapes.json"
    alone = filled(monkeypatch, shapes)
    ranks = [filled(monkeypatch, shapes, rank=rank, ranks=2) for rank in range(2)]
    ranks[1][name] = ranks[0][name]
    assert not torch.equal(joined(ranks)[name], alone[name])


def test_values_by_kind(monkeypatch, tmp_path):
    alone = filled(monkeypatch, tmp_path / "shapes.json")
    assert (alone["input_layernorm.weight"] - 1).abs().max() < 0.5
    assert 0 < alone["input_layernorm.bias"].abs().max() < 0.5
    assert 0 < alone["e_score_correction_bias"].abs().max() < 0.1
    assert torch.equal(alone["inv_freq"], torch.arange(4.0)), "computed by the engine, not loaded"
    kinds = {
        name: spec["kind"]
        for name, spec in json.loads((tmp_path / "shapes.json").read_text()).items()
    }
    assert kinds["gate.weight"] == "router"
    assert kinds["up_proj.weight"] == "projection"


def test_seeds_and_names_differ_and_nothing_else_matters(monkeypatch, tmp_path):
    one = filled(monkeypatch, tmp_path / "a", seed=1)
    torch.manual_seed(7)
    again = filled(monkeypatch, tmp_path / "b", seed=1)
    other = filled(monkeypatch, tmp_path / "c", seed=2)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["up_proj.weight"], other["up_proj.weight"])
    assert not torch.equal(one["up_proj.weight"], one["qkv_proj.weight"])


def test_a_parameter_that_nobody_filled_is_named(monkeypatch, tmp_path):
    model = Model()
    model.up_proj.weight.weight_loader = lambda parameter, loaded: None
    with pytest.raises(RuntimeError, match=r"no weight loader filled: up_proj\.weight"):
        filled(monkeypatch, tmp_path / "shapes.json", model=model)
    assert not (tmp_path / "shapes.json").exists()


def test_a_parameter_filled_in_part_is_named(monkeypatch, tmp_path):
    model = Model()
    model.up_proj.weight.weight_loader = lambda p, loaded: p.data[1:].copy_(loaded[1:])
    with pytest.raises(RuntimeError, match=r"no weight loader filled: up_proj\.weight"):
        filled(monkeypatch, tmp_path / "shapes.json", model=model)


def test_another_model_than_on_one_rank_is_an_error(monkeypatch, tmp_path):
    filled(monkeypatch, tmp_path / "shapes.json")
    model = Model(0, 2)
    model.extra = torch.nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match=r"extra\.weight: not a parameter of the one-rank run"):
        filled(monkeypatch, tmp_path / "shapes.json", ranks=2, model=model)


def test_slicing_by_shape_is_an_error_unless_it_is_argued(monkeypatch, tmp_path):
    alone = filled(monkeypatch, tmp_path / "shapes.json")
    model = Model(1, 2)
    del model.up_proj.weight.weight_loader
    monkeypatch.setattr(weights, "_rank", lambda owner, ways, name: 1)
    with pytest.raises(RuntimeError, match="1 tensors were sliced by comparing shapes, such as up"):
        filled(monkeypatch, tmp_path / "shapes.json", ranks=2, model=model)
    monkeypatch.setattr(weights, "ARGUED", {"up_proj.weight": "a reason"})
    half = filled(monkeypatch, tmp_path / "shapes.json", ranks=2, model=model)
    assert torch.equal(half["up_proj.weight"], alone["up_proj.weight"][INNER // 2 :])
    assert weights.LAST_RESORT == [
        "up_proj.weight: dimension 0 in 2; it has no weight loader",
    ]


def test_a_model_without_experts_is_no_mixture(monkeypatch, tmp_path):
    model = Model()
    del model.experts
    with pytest.raises(RuntimeError, match="no tensor of experts"):
        filled(monkeypatch, tmp_path / "shapes.json", model=model)


def test_what_a_model_derives_only_when_it_loads_is_derived(monkeypatch, tmp_path):
    model = Model()
    model._set_mla_wkc_wvc = lambda: model.register_buffer("twice", 2 * model.up_proj.weight)
    alone = filled(monkeypatch, tmp_path / "shapes.json", model=model)
    assert torch.equal(alone["twice"], 2 * alone["up_proj.weight"])


class Fused(torch.nn.Module):
    """Experts whose loader takes all of a rank's at once: half of the experts, or of each one."""

    num_experts = EXPERTS

    def __init__(self, *, rank, experts, parts):
        super().__init__()
        self.moe_ep_rank, self.moe_tp_rank = (rank, 0) if parts == 1 else (0, rank)
        self.w2_weight = torch.nn.Parameter(torch.zeros(experts, HIDDEN, INNER // parts))
        self.w2_weight_bias = torch.nn.Parameter(torch.zeros(experts, HIDDEN))
        self.w2_weight.weight_loader = self.w2_weight_bias.weight_loader = self.weight_loader_fused

    def weight_loader_fused(self, parameter, loaded, name, shard):
        if parameter.dim() == 3:
            loaded = loaded.narrow(2, self.moe_tp_rank * parameter.shape[2], parameter.shape[2])
        parameter.data.copy_(loaded)


def fused(monkeypatch, shapes, *, ranks=1, **how):
    model = torch.nn.Module()
    model.experts = type("FusedMoE", (Fused,), {})(**how)
    filled(monkeypatch, shapes, ranks=ranks, model=model)
    return model.experts


def test_a_fused_loader_gets_this_rank_s_experts_and_one_bias(monkeypatch, tmp_path):
    shapes = tmp_path / "shapes.json"
    alone = fused(monkeypatch, shapes, rank=0, experts=EXPERTS, parts=1)
    last = fused(monkeypatch, shapes, ranks=2, rank=1, experts=EXPERTS // 2, parts=1)
    assert torch.equal(last.w2_weight, alone.w2_weight[EXPERTS // 2 :])
    assert torch.equal(last.w2_weight_bias, alone.w2_weight_bias[EXPERTS // 2 :])
    parts = [
        fused(monkeypatch, shapes, ranks=2, rank=rank, experts=EXPERTS, parts=2) for rank in (0, 1)
    ]
    assert torch.equal(torch.cat([p.w2_weight for p in parts], -1), alone.w2_weight)
    assert torch.equal(sum(p.w2_weight_bias for p in parts), alone.w2_weight_bias)


class DbrxExperts(torch.nn.Module):
    def __init__(self, *, rank, parts):
        super().__init__()
        self.rank, self.inner = rank, INNER // parts
        self.ws = torch.nn.Parameter(torch.zeros(EXPERTS, 2 * self.inner, HIDDEN))
        self.w2s = torch.nn.Parameter(torch.zeros(EXPERTS, HIDDEN, self.inner))
        self.ws.weight_loader = self.w2s.weight_loader = self.load

    def load(self, parameter, loaded, name):
        mine = slice(self.rank * self.inner, (self.rank + 1) * self.inner)
        loaded = loaded.reshape(EXPERTS, INNER, HIDDEN)[:, mine]
        if name == "w2":
            parameter.data[:] = loaded.transpose(1, 2)
        else:
            at = {"w1": 0, "v1": self.inner}[name]
            parameter.data[:, at : at + self.inner] = loaded


def test_dbrx_s_experts_are_slices_of_the_one_rank_s(monkeypatch, tmp_path):
    def made(*, ranks, **how):
        model = torch.nn.Module()
        model.ffn = torch.nn.Module()
        model.ffn.experts = DbrxExperts(**how)
        filled(monkeypatch, tmp_path / "shapes.json", ranks=ranks, model=model)
        return model.ffn.experts

    alone = made(ranks=1, rank=0, parts=1)
    two = [made(ranks=2, rank=rank, parts=2) for rank in (0, 1)]
    assert torch.equal(torch.cat([part.w2s for part in two], -1), alone.w2s)
    halves = [
        torch.cat(half, 1) for half in zip(*(part.ws.chunk(2, 1) for part in two), strict=True)
    ]
    assert torch.equal(torch.cat(halves, 1), alone.ws)
