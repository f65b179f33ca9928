"""`ledger-double`."""

from verify.report.rules import Rule

RULE = Rule(
    id="ledger-double",
    title="A partial sum is counted more than once",
    why=(
        "In the deployment shown two steps add the same partial sums up. The output is a multiple "
        "of what it should be, and nothing crashes."
    ),
    repair="Skip one of the two steps.",
    example=None,
)
