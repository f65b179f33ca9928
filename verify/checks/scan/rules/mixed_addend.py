"""`mixed-addend`."""

from verify.report.rules import Example, Rule

RULE = Rule(
    id="mixed-addend",
    title="A sharded addend is summed over ranks that hold other tokens",
    why=(
        "A layer beside the routed experts is sharded and reduces its own output, but the block "
        "runs on rows that only this rank has. The sum mixes different tokens, or hangs where the "
        "ranks have different numbers of them."
    ),
    repair="Build the layer replicated where the rows are local.",
    example=Example(
        wrong="shared = MLP(..., reduce_results=True)  # its rows are local: other tokens mix in",
        right="shared = MLP(..., tp_size=1 if rows_are_local else None)",
        seen="0.5.17 - 0.5.23 with --dwdp-size",
    ),
)
