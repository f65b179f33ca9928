"""What stands in for kernels of vLLM's CPU build: values by another way, and ranks over gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
from verify.engines.vllm.serving.inside import standins  # noqa: E402

ROOT = Path(__file__).parents[4]
RANK = """
import json, sys, torch, torch.distributed as dist
from verify.engines.vllm.serving.inside import standins
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
class Group:
    world_size, rank_in_group, cpu_group = 2, rank, None
    all_gatherv = standins.all_gatherv
sizes = [1, 3]
rows = torch.full((sizes[rank], 2), 1.0 + rank)
whole = Group().all_gatherv([rows, rows.long()], 0, sizes)
given = torch.arange(8.0).view(4, 2) + 100 * rank
part = standins.reduce_scatterv(Group(), given, 0, sizes)
print(json.dumps([[each.tolist() for each in whole], part.tolist()]))
"""


@pytest.mark.ranks
def test_collectives_of_unequal_sizes(tmp_path):
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "meeting")],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [json.loads(rank.communicate(timeout=120)[0].splitlines()[-1]) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    whole = [[1.0, 1.0], [2.0, 2.0], [2.0, 2.0], [2.0, 2.0]]
    assert [rank[0] for rank in said] == [[whole, whole]] * 2
    assert said[0][1] == [[100.0, 102.0]]
    assert said[1][1] == [[104.0, 106.0], [108.0, 110.0], [112.0, 114.0]]


def mix(expert_map):
    torch.manual_seed(0)
    w1, w2 = torch.randn(2, 8, 4), torch.randn(2, 4, 4)
    given = {
        "output": torch.zeros(3, 4),
        "hidden_states": torch.randn(3, 4),
        "w1": w1,
        "w2": w2,
        "topk_weights": torch.tensor([[0.5, 0.25]] * 3),
        "topk_ids": torch.tensor([[0, 1], [1, 2], [3, 2]]),
        "activation": SimpleNamespace(value="silu"),
        "expert_map": expert_map,
        "apply_router_weight_on_input": False,
    }
    standins.mixed(SimpleNamespace(w1_bias=None, w2_bias=None), given)
    return given


def test_experts_of_other_ranks_answer_nothing():
    given = mix(torch.tensor([-1, 0, 1, -1]))

    def answer(row, local):
        gate, up = (given["w1"][local] @ given["hidden_states"][row]).chunk(2)
        return given["w2"][local] @ (torch.nn.functional.silu(gate) * up)

    torch.testing.assert_close(given["output"][0], 0.25 * answer(0, 0))
    torch.testing.assert_close(given["output"][1], 0.5 * answer(1, 0) + 0.25 * answer(1, 1))
    torch.testing.assert_close(given["output"][2], 0.25 * answer(2, 1))


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("silu", [0.731059 * 3]),
        ("relu2", [3.0]),
        ("silu_no_mul", [0.7311, 2.8577]),
        ("swigluoai", [4 * 1 / (1 + 2.718281828**-1.702)]),
        ("swiglustep", [0.731059 * 3]),
    ],
)
def test_activations_by_name(name, right):
    found = standins.activated(torch.tensor([1.0, 3.0]), name)
    torch.testing.assert_close(found, torch.tensor(right), atol=1e-4, rtol=0)


def test_an_unknown_activation_is_no_other():
    with pytest.raises(NotImplementedError, match="strange"):
        standins.activated(torch.tensor([1.0, 3.0]), "strange")


def test_a_bias_chooses_and_does_not_weigh():
    ids, weights = torch.zeros(1, 1, dtype=torch.int32), torch.zeros(1, 1)
    standins.topk_softmax(
        {
            "topk_weights": weights,
            "topk_ids": ids,
            "gating_output": torch.tensor([[1.0, 1.0]]),
            "e_score_correction_bias": torch.tensor([0.0, 1.0]),
        }
    )
    assert (ids.item(), weights.item()) == (1, 0.5)


def test_zero_experts_give_back_their_tokens_by_weight():
    hidden = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    given = {
        "expert_indices": torch.tensor([[0, 8], [9, 8]]),
        "expert_scales": torch.tensor([[0.5, 0.25], [1.0, 2.0]]),
        "num_experts": 8,
        "hidden_states": hidden,
    }
    found = standins.zero_experts(**given, zero_expert_type="identity")
    assert torch.equal(found, torch.tensor([[0.25, 0.5], [9.0, 12.0]]))
    with pytest.raises(NotImplementedError, match="type copy: not known"):
        standins.zero_experts(**given, zero_expert_type="copy")
