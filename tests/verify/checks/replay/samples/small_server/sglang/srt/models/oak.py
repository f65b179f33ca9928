import torch
from sglang.srt.distributed.parallel_state import get_tp_group
from sglang.srt.layers.communicator import LayerCommunicator
from sglang.srt.layers.moe.experts import FusedMoE


class VocabParallelEmbedding(torch.nn.Module):
    def forward(self, input_ids):
        raise RuntimeError("needs weights")


class OakAttention(torch.nn.Module):
    def forward(self, positions, hidden_states):
        raise RuntimeError("needs a cache")


class OakBlock(torch.nn.Module):
    def __init__(self, config, layer_id):
        super().__init__()
        self.experts = FusedMoE(num_experts=config.num_experts, layer_id=layer_id)

    def forward(self, hidden_states, use_reduce_scatter):
        hidden_states = self.experts(hidden_states)
        if not use_reduce_scatter:
            hidden_states = get_tp_group().all_reduce(hidden_states)
        return hidden_states


class OakDecoderLayer(torch.nn.Module):
    def __init__(self, config, layer_id):
        super().__init__()
        self.self_attn = OakAttention()
        self.mlp = OakBlock(config, layer_id)
        self.communicator = LayerCommunicator()

    def forward(self, positions, hidden_states, forward_batch):
        hidden_states = hidden_states + self.self_attn(positions, hidden_states)
        rows = self.communicator.gather(hidden_states)
        rows = self.mlp(rows, self.communicator.will_reduce_scatter(forward_batch))
        return hidden_states + self.communicator.scatter(rows, forward_batch)


class OakModel(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = VocabParallelEmbedding()
        self.layers = torch.nn.ModuleList(
            OakDecoderLayer(config, layer_id) for layer_id in range(config.num_hidden_layers)
        )

    def forward(self, input_ids, positions, forward_batch):
        hidden_states = self.embed_tokens(input_ids)
        for layer in self.layers:
            hidden_states = layer(positions, hidden_states, forward_batch)
        return hidden_states
