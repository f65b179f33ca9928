"""`sums-local-rows`."""

from verify.report.rules import Example, Rule

RULE = Rule(
    id="sums-local-rows",
    title="Rows of different tokens are summed up",
    why=(
        "With moe_dense_tp_size 1 a dense MLP runs replicated on rows that only this rank has: "
        "nothing is owed. A reduction, or the next layer's fused norm, sums them up all the same "
        "and adds different tokens to each other. So it is with experts under an all-to-all "
        "backend that gets no dispatcher: their rows are this rank's own all the same."
    ),
    repair="Do not sum, and do not leave a sum, where rows are rank-local.",
    example=Example(
        wrong="mlp = MLP(..., tp_size=1); fuse = True  # the next norm sums complete rows",
        right="fuse = should_fuse and not mlp_is_replicated",
        seen="0.5.10 - 0.5.21 sarvam_moe.py",
    ),
)
