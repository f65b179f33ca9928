"""qwen2_moe: what Qwen2MoeSparseMoeBlock checked before it reduced."""

from oracles._site import Site

SITES = (
    Site(
        model="qwen2_moe",
        cls="Qwen2MoeSparseMoeBlock",
        method="forward",
        path="TP",
        collective="tensor_model_parallel_all_reduce",
        size_gate="self.tp_size",
        size_world="tp",
        guard="not AF and not RS and not FI and not DP",
        accepts=("RS", "AF"),
        passes={"use_reduce_scatter": "RS", "should_allreduce_fusion": "AF"},
        category="A",
        category_inferred=False,
        lines=(470, 476),
    ),
)
