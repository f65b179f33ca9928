"""glm4_moe: what Glm4MoeSparseMoeBlock checked before it reduced."""

from oracles._site import Site

SITES = (
    Site(
        model="glm4_moe",
        cls="Glm4MoeSparseMoeBlock",
        method="forward_normal_dual_stream",
        path="TP",
        collective="tensor_model_parallel_all_reduce",
        size_gate="self.tp_size",
        size_world="tp",
        guard="not AF and not RS and not FI and not DP",
        accepts=("AF", "RS"),
        passes={"use_reduce_scatter": "RS", "should_allreduce_fusion": "AF"},
        category="A",
        category_inferred=False,
        lines=(597, 603),
    ),
    Site(
        model="glm4_moe",
        cls="Glm4MoeSparseMoeBlock",
        method="forward_normal",
        path="TP",
        collective="tensor_model_parallel_all_reduce",
        size_gate="self.tp_size",
        size_world="tp",
        guard="not AF and not RS and not FI and not DP",
        accepts=("AF", "RS"),
        passes={"use_reduce_scatter": "RS", "should_allreduce_fusion": "AF"},
        category="A",
        category_inferred=False,
        lines=(632, 638),
    ),
)
