"""`ledger-missing`."""

from verify.report.rules import Rule

RULE = Rule(
    id="ledger-missing",
    title="A partial sum is never counted",
    why=(
        "In the deployment shown the block leaves its sum to a later step that does not add up "
        "the same ranks. Every rank goes on without some of the parts."
    ),
    repair="Reduce in the block, or make the later step reduce over the same ranks.",
    example=None,
)
