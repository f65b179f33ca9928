"""`migrated-call-differs`."""

from verify.report.rules import Rule

RULE = Rule(
    id="migrated-call-differs",
    title="A migrated call is not what its oracle states",
    why=(
        "The path, the keywords, what forward() receives or the rows in which the guard skips "
        "differ from what the migration wrote. The truth tables of the site then describe another "
        "program."
    ),
    repair="Restore the call, or state the new one in the oracle.",
    example=None,
)
