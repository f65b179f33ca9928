"""For `serve --patch`: dense layers of Step-3.5 and Sarvam-MLA of SGLang 0.5.20 are summed once.

Under attention data parallelism, by the layer's end where that sums (reduce-scatter), else by the
down projection. Step-3.5's projection sums in either case; of Sarvam's nobody sums where each rank
has its attention alone, since the layer asks for attention groups of more than one rank.
"""

from sglang.srt.models import sarvam_moe, step3p5


def once(layer, *, asked):
    """A layer whose down projection sums where the layer's end does not; `asked` says of which."""
    forward = layer.forward

    def run(self, positions, hidden_states, forward_batch, *others, **named):
        if asked(self):
            later = self.layer_communicator.should_use_reduce_scatter(forward_batch)
            self.mlp.down_proj.reduce_results = not later
        return forward(self, positions, hidden_states, forward_batch, *others, **named)

    layer.forward = run


once(step3p5.Step3p5DecoderLayer, asked=lambda layer: not layer.use_moe)
once(
    sarvam_moe.SarvamMoEMLADecoderLayer,
    asked=lambda layer: not layer.is_layer_sparse and layer.attn_tp_size == 1,
)
