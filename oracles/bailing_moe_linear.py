"""bailing_moe_linear: what BailingMoE checked before it reduced."""

from oracles._site import Site

SITES = (
    Site(
        model="bailing_moe_linear",
        cls="BailingMoE",
        method="forward",
        path="TP",
        collective="tensor_model_parallel_all_reduce",
        size_gate="self.tp_size",
        size_world="tp",
        guard="not RS and not AF and not DP",
        accepts=("AF", "RS"),
        passes={"use_reduce_scatter": "RS", "should_allreduce_fusion": "AF"},
        category="B",
        category_inferred=False,
        lines=(351, 356),
    ),
)
