"""`replicated-addend`."""

from verify.report.rules import Example, Rule

RULE = Rule(
    id="replicated-addend",
    title="A value that every rank holds goes into a sum that is completed later",
    why=(
        "Every rank adds the same complete value to its partial sum, and a later step adds the "
        "partial sums up: the value counts once for every rank, so the output depends on how many "
        "there are."
    ),
    repair="Add it on one rank only while the sum is owed, or after the reduction.",
    example=Example(
        wrong="y = experts(x) + zero_experts(x)  # every rank adds it, then ranks are summed",
        right="y = all_reduce(experts(x)) + zero_experts(x)",
        seen="0.5.2 - 0.5.23 longcat_flash.py",
    ),
)
