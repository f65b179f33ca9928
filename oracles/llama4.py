"""llama4: what Llama4MoE checked before it reduced."""

from oracles._site import Site

SITES = (
    Site(
        model="llama4",
        cls="Llama4MoE",
        method="forward",
        path="TP",
        collective="tensor_model_parallel_all_reduce",
        size_gate="self.tp_size",
        size_world="tp",
        guard="not RS and not DP",
        accepts=("RS",),
        passes={"use_reduce_scatter": "RS"},
        category="C",
        category_inferred=True,
        lines=(149, 153),
    ),
)
