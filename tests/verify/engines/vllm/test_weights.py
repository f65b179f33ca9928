"""Weights by name, handed to loaders part by part."""

import json
import sys
import types

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from verify.engines.vllm.serving.inside import weights  # noqa: E402


class Qkv(nn.Module):
    head_size, total_num_heads, total_num_kv_heads = 2, 2, 1


class Merged(nn.Module):
    """Two parts of four rows; this rank's half of each, one after the other."""

    output_sizes = (4, 4)

    def __init__(self, rank, size):
        super().__init__()
        self.rank, self.size = rank, size
        self.weight = nn.Parameter(torch.zeros(8 // size, 3), requires_grad=False)
        self.weight.output_dim = 0
        self.weight.weight_loader = self.load

    def load(self, tensor, part, shard):
        rows = 4 // self.size
        tensor.data[shard * rows : (shard + 1) * rows] = part.chunk(self.size)[self.rank]


class Experts(nn.Module):
    """Nothing but the tensor of experts that every mixture has."""

    def __init__(self):
        super().__init__()
        self.kept = nn.Parameter(torch.zeros(2, 2, 2), requires_grad=False)


class Model(nn.Module):
    def __init__(self, rank=0, size=1):
        super().__init__()
        self.mlp, self.experts = Merged(rank, size), Experts()


@pytest.fixture(autouse=True)
def engine(monkeypatch):
    linear = types.ModuleType("linear")
    linear.QKVParallelLinear, linear.MergedColumnParallelLinear = Qkv, Merged
    routed = types.ModuleType("routed")
    routed.RoutedExperts = type("RoutedExperts", (), {})
    layers = "vllm.model_executor.layers"
    monkeypatch.setitem(sys.modules, "vllm", types.ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, f"{layers}.linear", linear)
    monkeypatch.setitem(sys.modules, f"{layers}.fused_moe.routed_experts", routed)
    world = [1]
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: world[0])
    return world


def filled(model, shapes, *, seed=0):
    weights.fill(model, seed=seed, shapes=shapes)
    return model


def test_ranks_hold_slices_of_the_one_ranks_model(engine, tmp_path):
    shapes = tmp_path / "shapes.json"
    one = filled(Model(), shapes)
    engine[0] = 2
    halves = [filled(Model(rank, 2), shapes).mlp.weight for rank in range(2)]
    parts = [torch.cat([half[2 * part : 2 * part + 2] for half in halves]) for part in range(2)]
    assert torch.equal(torch.cat(parts), one.mlp.weight)


def test_another_seed_is_another_model(tmp_path):
    one, other = (filled(Model(), tmp_path / "s", seed=seed) for seed in (0, 1))
    assert not torch.equal(one.mlp.weight, other.mlp.weight)


def test_a_parameter_that_one_rank_lacks_is_named(engine, tmp_path):
    shapes = tmp_path / "shapes.json"
    filled(Model(), shapes)
    written = json.loads(shapes.read_text())
    del written["mlp.weight"]
    shapes.write_text(json.dumps(written))
    engine[0] = 2
    with pytest.raises(RuntimeError, match=r"mlp\.weight: not a parameter of the one-rank run"):
        filled(Model(0, 2), shapes)


def test_a_loader_that_leaves_something_out_is_seen(tmp_path):
    model = Model()
    model.mlp.weight.weight_loader = lambda tensor, full: tensor.data[:1].copy_(full[:1])
    with pytest.raises(RuntimeError, match=r"mlp\.weight: its weight loader did not fill it"):
        filled(model, tmp_path / "s")


def test_a_part_without_a_loader_is_no_guess(engine, tmp_path):
    shapes = tmp_path / "shapes.json"
    filled(Model(), shapes)
    engine[0] = 2
    model = Model(0, 2)
    model.experts.kept = nn.Parameter(torch.zeros(1, 2, 2), requires_grad=False)
    with pytest.raises(RuntimeError, match=r"experts\.kept: has no weight loader"):
        filled(model, shapes)


class K2HorizonRMSNorm(nn.Module):
    def __init__(self, rows):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows), requires_grad=False)


class Heads(nn.Module):
    """A norm of keys without a loader; whole there are two heads of three."""

    def __init__(self, rows=6):
        super().__init__()
        self.k_norm, self.experts = K2HorizonRMSNorm(rows), Experts()


def test_an_argued_piece_is_the_ranks_own_head(engine, monkeypatch, tmp_path):
    here = [0]
    distributed = types.ModuleType("distributed")
    distributed.get_tensor_model_parallel_rank = lambda: here[0]
    distributed.get_tensor_model_parallel_world_size = lambda: 4
    monkeypatch.setitem(sys.modules, "vllm.distributed", distributed)
    shapes = tmp_path / "shapes.json"
    whole = filled(Heads(), shapes).k_norm.weight
    engine[0], pieces = 4, []
    for here[0] in range(4):
        pieces.append(filled(Heads(3), shapes).k_norm.weight)
    assert torch.equal(torch.cat(pieces), torch.cat([whole[:3], whole[:3], whole[3:], whole[3:]]))


def test_a_model_without_experts_is_no_mixture(tmp_path):
    model = nn.Sequential(Merged(0, 1))
    with pytest.raises(RuntimeError, match="makes no mixture"):
        filled(model, tmp_path / "s")
