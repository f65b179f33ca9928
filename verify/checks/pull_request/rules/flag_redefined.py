"""`flag-redefined`."""

from verify.report.rules import Rule

RULE = Rule(
    id="flag-redefined",
    title="A flag of the configuration is defined otherwise than in the helper",
    why=(
        "The source computes the flag by a rule that gives another answer in the configuration "
        "shown, so that tables made with the helper do not describe this source there."
    ),
    repair="Bring the helper to the new definition, or compare with a source of the older one.",
    example=None,
)
