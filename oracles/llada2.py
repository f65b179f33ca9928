"""llada2: what LLaDA2MoeSparseMoeBlock checked before it reduced."""

from oracles._site import Site

SITES = (
    Site(
        model="llada2",
        cls="LLaDA2MoeSparseMoeBlock",
        method="forward_normal",
        path="TP",
        collective="tensor_model_parallel_all_reduce",
        size_gate="self.tp_size",
        size_world="tp",
        guard="not RS and not DP",
        accepts=("RS",),
        passes={"use_reduce_scatter": "RS"},
        category="C",
        category_inferred=True,
        lines=(386, 390),
    ),
)
