from sglang.srt.distributed import tensor_model_parallel_all_reduce
from sglang.srt.layers.attention import RadixAttention
from sglang.srt.layers.communicator import LayerCommunicator
from sglang.srt.layers.layernorm import RMSNorm
from sglang.srt.layers.moe.fused_moe import FusedMoE
from sglang.srt.layers.moe.utils import (
    should_use_flashinfer_cutlass_moe_fp4_allgather,
)


class CedarBlock:
    def __init__(self, config):
        self.experts = FusedMoE(config, reduce_results=False)

    def forward(self, hidden_states, should_allreduce_fusion=False, use_reduce_scatter=False):
        hidden_states = self.experts(hidden_states)
        if not (
            should_allreduce_fusion
            or use_reduce_scatter
            or should_use_flashinfer_cutlass_moe_fp4_allgather()
        ):
            hidden_states = tensor_model_parallel_all_reduce(hidden_states)
        return hidden_states


class CedarDecoderLayer:
    def __init__(self, config):
        self.attention = RadixAttention(config)
        self.norm = RMSNorm(config)
        self.mlp = CedarBlock(config)
        self.communicator = LayerCommunicator(self.norm, allow_reduce_scatter=True)

    def forward(self, hidden_states, residual, batch):
        fuse = self.communicator.should_fuse_mlp_allreduce_with_next_layer(batch)
        scatter = self.communicator.should_use_reduce_scatter(batch)
        hidden_states = self.mlp(hidden_states, fuse, scatter)
        if fuse:
            hidden_states._sglang_needs_allreduce_fusion = True
            return hidden_states, residual
        return self.communicator.postprocess_layer(hidden_states, residual, batch)
