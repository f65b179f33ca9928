from typing import NamedTuple

import torch
from fast_kernels import launch
from sglang.srt.distributed.parallel_state import get_tp_group
from sglang.srt.layers.moe.utils import get_moe_ep_size


class StandardCombineInput(NamedTuple):
    hidden_states: object


class Dispatched(NamedTuple):
    hidden_states: object


class StandardDispatcher:
    def dispatch(self, hidden_states):
        return Dispatched(hidden_states)

    def combine(self, combine_input):
        return StandardCombineInput(*combine_input).hidden_states


class UnquantizedFusedMoEMethod:
    def apply(self, layer, dispatch_output):
        return launch(layer, dispatch_output)


class FusedMoE(torch.nn.Module):
    def __init__(self, num_experts, layer_id):
        super().__init__()
        self.layer_id = layer_id
        group = get_tp_group()
        self.moe_ep_size = get_moe_ep_size()
        self.moe_tp_size = group.world_size // self.moe_ep_size
        self.moe_ep_rank = group.rank_in_group // self.moe_tp_size
        self.moe_tp_rank = group.rank_in_group % self.moe_tp_size
        self.quant_method = UnquantizedFusedMoEMethod()
        self.dispatcher = StandardDispatcher()

    def forward(self, hidden_states):
        dispatched = self.dispatcher.dispatch(hidden_states)
        partial = self.quant_method.apply(layer=self, dispatch_output=dispatched)
        return self.dispatcher.combine(partial)
