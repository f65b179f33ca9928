"""qwen3_moe: what Qwen3MoeSparseMoeBlock checked before it reduced."""

from oracles._site import Site

SITES = (
    Site(
        model="qwen3_moe",
        cls="Qwen3MoeSparseMoeBlock",
        method="forward_normal",
        path="EP",
        collective="moe_expert_parallel_all_reduce",
        size_gate="self.ep_size",
        size_world="moe_ep",
        guard="not AF and not RS and not DP",
        accepts=("AF", "RS"),
        passes={"use_reduce_scatter": "RS", "should_allreduce_fusion": "AF"},
        category="A",
        category_inferred=False,
        lines=(335, 340),
    ),
    Site(
        model="qwen3_moe",
        cls="Qwen3MoeSparseMoeBlock",
        method="forward_normal",
        path="TP",
        collective="moe_tensor_model_parallel_all_reduce",
        size_gate="self.tp_size",
        size_world="moe_tp",
        guard="not AF and not RS and not FI and not DP",
        accepts=("AF", "RS"),
        passes={"use_reduce_scatter": "RS", "should_allreduce_fusion": "AF"},
        category="A",
        category_inferred=False,
        lines=(343, 349),
    ),
)
