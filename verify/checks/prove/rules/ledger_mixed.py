"""`ledger-mixed`."""

from verify.report.rules import Rule

RULE = Rule(
    id="ledger-mixed",
    title="Tensors of different tokens are added to each other",
    why=(
        "In the deployment shown a reduction runs over ranks that hold different tokens, after "
        "the sum was complete or before the tokens were gathered."
    ),
    repair="Do not reduce there.",
    example=None,
)
