"""`stale-expectation`."""

from verify.report.rules import Rule

RULE = Rule(
    id="stale-expectation",
    level="warning",
    title="The baseline expects a finding that is no longer there",
    why=(
        "An entry of the reviewed baseline matched nothing. The bug it accepts was fixed, or the "
        "code moved."
    ),
    repair="Delete the entry, so that the bug cannot come back unseen.",
    example=None,
)
