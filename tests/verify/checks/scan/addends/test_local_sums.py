"""Rows that only this rank has are not to be summed up over other ranks."""

from collections.abc import Callable
from typing import Any

Judge = Callable[..., Any]

FUSES = """

def fusion_applies(batch):
    return _use_aiter or SM90 and not is_dp_attention_enabled()


class LayerScatterModes:
    @classmethod
    def init_new(cls, **kwargs):
        return cls(mlp_mode=cls._compute_mlp_mode(kwargs))

    @classmethod
    def _compute_mlp_mode(cls, context):
        if context.is_layer_sparse:
            return ScatterMode.FULL
        return ScatterMode.SCATTERED if enable_moe_dense_fully_dp() else ScatterMode.FULL


class LayerCommunicator:
    def __init__(self, layer_scatter_modes, input_layernorm, is_last_layer=False):
        self.layer_scatter_modes = layer_scatter_modes
        self.is_last_layer = is_last_layer

    def prepare_attn(self, hidden_states, residual):
        if apply_fusion(hidden_states):
            return self.input_layernorm.forward_with_allreduce_fusion(
                hidden_states, residual, use_attn_tp_group=True
            )
        else:
            hidden_states = tensor_model_parallel_all_reduce(hidden_states)
        return self.input_layernorm(hidden_states, residual)

    def should_use_reduce_scatter(self, batch):
        return False

    def should_fuse_mlp_allreduce_with_next_layer(self, batch):
        return fusion_applies(batch) and not self.is_last_layer
"""
ASKS = (
    "        return fusion_applies(batch) and",
    "        if self.layer_scatter_modes.mlp_mode == ScatterMode.SCATTERED:\n"
    "            return False\n        return fusion_applies(batch) and",
)
LAYER = """
class Mlp:
    def __init__(self, config, tp_size=None):
        self.down = RowParallelLinear(config.n, config.h, tp_size=tp_size)

    def forward(self, x, batch=None, fuse=False, scatter=False):
        x, _ = self.down(x, skip_all_reduce=fuse)
        return x


class Layer:
    def __init__(self, config, layer_id):
        self.sparse = layer_id >= config.first_dense
        if self.sparse:
            self.mlp = Block(config)
        else:
            self.mlp = Mlp(config, tp_size=1 if enable_moe_dense_fully_dp() else None)
        self.norm = RMSNorm(config.hidden)
        self.comm = LayerCommunicator(
            LayerScatterModes.init_new(is_layer_sparse=self.sparse),
            self.norm,
            is_last_layer=layer_id == config.last,
        )

    def forward(self, positions, hidden_states, batch, residual):
        hidden_states, residual = self.comm.prepare_mlp(hidden_states, residual, batch)
        fuse = self.comm.should_fuse_mlp_allreduce_with_next_layer(batch)
        hidden_states = self.mlp(hidden_states, batch, fuse, False)
        if fuse:
            hidden_states._sglang_needs_allreduce_fusion = True
        else:
            hidden_states, residual = self.comm.postprocess_layer(hidden_states, residual, batch)
        return hidden_states, residual
"""
IMPORT = "from sglang.srt.layers.communicator import LayerScatterModes\n"
RULE = "sums-local-rows"


def found(scanned: Any, sample: Any, layer: str = LAYER, fuses: str = FUSES) -> Any:
    library = {"layers/communicator.py": fuses}
    result = scanned(IMPORT, sample.block, layer, library=library)
    assert result.unread == ()
    return [f for f in result.findings if f.rule in (RULE, "group-too-narrow")]


def test_fused_norm_takes_rows_that_owe_nothing(scanned: Any, sample: Any) -> None:
    (finding,) = found(scanned, sample)
    assert (finding.rule, finding.row, finding.kind) == (RULE, "1000", "mixed")
    assert finding.file == "sglang/srt/layers/communicator.py"
    assert finding.method == "should_fuse_mlp_allreduce_with_next_layer"
    assert found(scanned, sample, fuses=sample.changed(FUSES, *ASKS)) == []
    gathered = ("ScatterMode.SCATTERED if enable_moe_dense_fully_dp() else ", "")
    assert found(scanned, sample, fuses=sample.changed(FUSES, *gathered)) == []


def test_layer_that_sums_its_dense_mlp_again(scanned: Any, sample: Any) -> None:
    again = sample.changed(
        LAYER,
        "        if fuse:\n",
        "        if not self.sparse and not fuse:\n"
        "            hidden_states = tensor_model_parallel_all_reduce(hidden_states)\n"
        "        if fuse:\n",
    )
    (finding,) = found(scanned, sample, again, sample.changed(FUSES, *ASKS))
    assert (finding.rule, finding.row, finding.cls) == (RULE, "0000", "Layer")
    minds = sample.changed(
        again, "not self.sparse and not", "not enable_moe_dense_fully_dp() and not"
    )
    assert found(scanned, sample, minds, sample.changed(FUSES, *ASKS)) == []


def test_stand_in_for_a_declined_kernel_sums_over_one_group(scanned: Any, sample: Any) -> None:
    fuses = sample.changed(FUSES, *ASKS)
    assert found(scanned, sample, fuses=fuses) == []
    half = sample.changed(
        fuses,
        "tensor_model_parallel_all_reduce(hidden",
        "moe_tensor_model_parallel_all_reduce(hidden",
    )
    (finding,) = found(scanned, sample, fuses=half)
    assert (finding.rule, finding.row, finding.method) == (
        "group-too-narrow",
        "1000",
        "prepare_attn",
    )
    assert "declines" in finding.message
