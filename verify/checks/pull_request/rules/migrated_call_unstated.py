"""`migrated-call-unstated`."""

from verify.report.rules import Rule

RULE = Rule(
    id="migrated-call-unstated",
    level="warning",
    title="A call to the helper that no oracle states",
    why=(
        "A model asks the helper, but what its guard was before, if it had one, is not written "
        "down: no table shows whether the call changed what it computes."
    ),
    repair="Add an oracle.",
    example=None,
)
