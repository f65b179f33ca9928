import torch
from sglang.srt.distributed.parallel_state import get_tp_group
from sglang.srt.layers.dp_attention import get_attention_dp_size, get_local_dp_buffer


class LayerCommunicator:
    def gather(self, hidden_states):
        if get_attention_dp_size() == 1:
            return hidden_states
        group = get_tp_group()
        rows = torch.empty((len(hidden_states) * group.world_size, hidden_states.shape[1]))
        group.all_gather_into_tensor(rows, hidden_states)
        return rows

    def will_reduce_scatter(self, forward_batch):
        return get_attention_dp_size() > 1 and forward_batch.dp_padding_mode.is_max_len()

    def scatter(self, hidden_states, forward_batch):
        if get_attention_dp_size() == 1:
            return hidden_states
        rows = get_local_dp_buffer()
        if self.will_reduce_scatter(forward_batch):
            get_tp_group().reduce_scatter_tensor(rows, hidden_states)
            return rows
        start = get_tp_group().rank_in_group * len(rows)
        return hidden_states[start : start + len(rows)]
