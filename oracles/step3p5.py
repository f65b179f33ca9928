"""step3p5: what Step3p5MoEMLP checked before it reduced."""

from oracles._site import Site

SITES = (
    Site(
        model="step3p5",
        cls="Step3p5MoEMLP",
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
        lines=(236, 242),
    ),
)
