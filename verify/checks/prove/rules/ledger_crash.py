"""`ledger-crash`."""

from verify.report.rules import Rule

RULE = Rule(
    id="ledger-crash",
    title="A legal deployment in which a collective cannot run",
    why=(
        "The ranks of one group bring tensors of different lengths, or sizes that do not fit the "
        "group. The server hangs or stops at this layer."
    ),
    repair="Refuse the combination of arguments, or choose the step by the sizes it needs.",
    example=None,
)
