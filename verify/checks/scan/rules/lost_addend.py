"""`lost-addend`."""

from verify.report.rules import Example, Rule

RULE = Rule(
    id="lost-addend",
    title="A sharded addend stays where nobody completes its sum",
    why=(
        "A layer beside the routed experts, such as a shared expert, is sharded over the group, "
        "but the block runs on rows that only this rank has, where nobody sums up. Every rank "
        "keeps its own slice of that layer and misses the others."
    ),
    repair=(
        "Build it replicated by the condition that makes the rows local, not by a list of "
        "backends written by hand."
    ),
    example=Example(
        wrong="shared = MLP(...)  # sharded; the block's rows are local, nobody sums slices",
        right="shared = MLP(..., tp_size=1 if rows_are_local else None)",
        seen="0.5.17 - 0.5.23 with --dwdp-size; 0.5.7 - 0.5.23 with FP4 all-gather",
    ),
)
