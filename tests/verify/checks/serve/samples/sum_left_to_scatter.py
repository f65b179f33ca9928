"""For `serve --patch`: Qwen3-MoE of SGLang 0.5.10.post1 leaves its sum to the layer's end (#23734).

Where that reduce-scatters (attention data parallelism with `--ep-size`), which the block is told
and does not ask; the release adds up in both places.
"""

import sglang.srt.models.qwen3_moe as model

forward = model.Qwen3MoeSparseMoeBlock.forward_normal


def run(self, rows, should_allreduce_fusion=False, use_reduce_scatter=False):
    later = should_allreduce_fusion or use_reduce_scatter
    return forward(self, rows, later, use_reduce_scatter)


model.Qwen3MoeSparseMoeBlock.forward_normal = run
