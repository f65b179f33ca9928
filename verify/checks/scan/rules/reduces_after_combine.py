"""`reduces-after-combine`."""

from verify.report.rules import Example, Rule

RULE = Rule(
    id="reduces-after-combine",
    title="The block reduces what an all-to-all combine has completed",
    why=(
        "With an all-to-all backend the combine hands every token its complete sum back; the "
        "block's reduction then adds complete sums up."
    ),
    repair="Skip the reduction where the dispatcher combines.",
    example=Example(
        wrong="if tp_size > 1: y = all_reduce(y)  # combine has summed it",
        right="if tp_size > 1 and get_moe_a2a_backend().is_none(): y = all_reduce(y)",
        seen="blocks that are built for no all-to-all backend and do not refuse one",
    ),
)
