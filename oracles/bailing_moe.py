"""bailing_moe: what BailingMoESparseMoeBlock checked before it reduced."""

from oracles._site import Site

SITES = (
    Site(
        model="bailing_moe",
        cls="BailingMoESparseMoeBlock",
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
        lines=(385, 391),
    ),
)
