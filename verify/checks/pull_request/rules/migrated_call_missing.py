"""`migrated-call-missing`."""

from verify.report.rules import Rule

RULE = Rule(
    id="migrated-call-missing",
    title="A migrated call is not in the source",
    why=(
        "No call to the helper was found where the oracle states one, so that the site's guard is "
        "written out again and can drift from the others."
    ),
    repair="Restore the call, or remove the oracle when the model is gone.",
    example=None,
)
