from sglang.srt.layers.dp_attention import attn_cp_all_gather, attn_cp_reduce_scatter
from sglang.srt.layers.settings import prefill_is_context_parallel


class LayerCommunicator:
    """Under prefill context parallelism a rank of a context group has rows of its own."""

    def __init__(self, norm, sparse):
        self.norm = norm
        self.sparse = sparse

    def prepare_mlp(self, hidden_states, residual):
        hidden_states, residual = self.norm(hidden_states, residual)
        if self.sparse and prefill_is_context_parallel():
            hidden_states = attn_cp_all_gather(hidden_states)
        return hidden_states, residual

    def postprocess_layer(self, hidden_states, residual):
        if self.sparse and prefill_is_context_parallel():
            hidden_states = attn_cp_reduce_scatter(hidden_states)
        return hidden_states, residual
