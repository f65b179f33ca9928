"""`missing-skip`."""

from verify.report.rules import Example, Rule

RULE = Rule(
    id="missing-skip",
    title="The block reduces although a later step reduces again",
    why=(
        "The guard does not know a reason to skip. In the row shown the partial sums are added up "
        "twice: on k ranks the output is about k times too large, and nothing crashes."
    ),
    repair="Ask the canonical predicate, or add the missing flag to the guard.",
    example=Example(
        wrong="if tp_size > 1 and not should_allreduce_fusion: y = all_reduce(y)",
        right="if tp_size > 1 and not should_skip_post_experts_all_reduce(...): y = all_reduce(y)",
        seen="0.5.11 - 0.5.19 gpt_oss.py: output times ranks under attention DP (#37199)",
    ),
)
