"""`ep-tp-drift`."""

from verify.report.rules import Example, Rule

RULE = Rule(
    id="ep-tp-drift",
    title="The EP and the TP reduction of one block disagree",
    why=(
        "Two reductions of the same block skip on different flags although the same later step "
        "completes both. In the rows where they differ one partial sum is counted twice or lost."
    ),
    repair="Give both the same reasons to skip, except those that belong to one path.",
    example=Example(
        wrong="if ep_size > 1 and not AF: y = ep_all_reduce(y)  # the TP guard asks for RS too",
        right="if ep_size > 1 and not AF and not RS: y = ep_all_reduce(y)",
        seen="0.5.10 - 0.5.10.post1 qwen3_moe.py (#23734), 5.3 nats in decode",
    ),
)
