"""What stands for all-to-all dispatchers adds up every expert's part of every token once."""

from types import SimpleNamespace

import torch

from verify.checks.replay.dispatch import AllToAll, fused_exchange
from verify.emulator.ranks import Rank, run_ranks


def test_every_token_comes_back_with_the_parts_of_all_ranks():
    def body(rank: Rank) -> list[float]:
        dispatcher = AllToAll()
        own = torch.full((rank.rank, 1), 10.0 * rank.rank)
        tokens = dispatcher.dispatch(own, topk_output=None).hidden_states
        parts = tokens + 2**rank.rank
        combined = dispatcher.combine(SimpleNamespace(hidden_states=parts))
        return combined.flatten().tolist()

    # three parts of each token, and the three ranks' own shares 1 + 2 + 4
    assert run_ranks(body, world_size=3) == [[], [37.0], [67.0, 67.0]]


def test_a_kernel_that_does_all_of_it_does_the_same():
    def body(rank: Rank) -> list[float]:
        def apply(layer, dispatch_output):
            return SimpleNamespace(hidden_states=dispatch_output.hidden_states + 2**rank.rank)

        layer = SimpleNamespace(quant_method=SimpleNamespace(apply=apply))
        own = torch.full((rank.rank, 1), 10.0 * rank.rank)
        return fused_exchange(layer, own, None, forward_batch=None).flatten().tolist()

    assert run_ranks(body, world_size=3) == [[], [37.0], [67.0, 67.0]]
