"""What stands for all-to-all dispatchers: every token to every expert, every sum to its owner."""

from types import SimpleNamespace
from typing import Any

import torch

from verify.emulator.ranks import current_rank


class AllToAll:
    """Dispatch hands every rank all tokens; combine completes the sums and hands them back.

    Real backends send a token only to the ranks of its experts; what comes back is the same.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._sizes: list[int] = []

    def set_quant_config(self, config: Any) -> None:
        """Nothing is quantised."""

    def dispatch(self, hidden_states: torch.Tensor, topk_output: Any, **options: Any) -> Any:
        """The tokens of all ranks, in rank order."""
        rank = current_rank()
        self._sizes = rank.all_gather(torch.tensor([len(hidden_states)])).tolist()
        tokens = rank.all_gatherv(hidden_states, sizes=self._sizes)
        return SimpleNamespace(hidden_states=tokens, topk_output=topk_output)

    def combine(self, combine_input: Any, **options: Any) -> torch.Tensor:
        """The sums of this rank's own tokens."""
        return current_rank().reduce_scatterv(combine_input.hidden_states, sizes=self._sizes)


def run_experts(self: Any, dispatch_output: Any, **options: Any) -> Any:
    """The experts' method, whatever the quantisation and the kernels of the backend."""
    return self.quant_method.apply(layer=self, dispatch_output=dispatch_output)


def fused_exchange(
    layer: Any, hidden_states: torch.Tensor, topk_output: Any, **options: Any
) -> torch.Tensor:
    """A kernel that moves tokens, runs the experts and moves their sums back."""
    exchange = AllToAll()
    moved = exchange.dispatch(hidden_states, topk_output)
    return exchange.combine(run_experts(layer, moved))


def dispatchers() -> dict[str, Any]:
    """By the names under which releases know them."""
    names = (
        "MaybeTboDeepEPDispatcher",
        "FlashinferDispatcher",
        "DeepEPDispatcher",
        "NpuFuseEPDispatcher",
    )
    return {
        **dict.fromkeys(names, AllToAll),
        "DeepEPMoE.run_moe_core": run_experts,
        "NpuFuseEPMoE.forward": fused_exchange,
        "forward_fuseep": fused_exchange,
    }
