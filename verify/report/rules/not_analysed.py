"""`not-analysed`."""

from verify.report.rules import Rule

RULE = Rule(
    id="not-analysed",
    title="What was asked for could not be looked at",
    why=(
        "A case that was named could not be run or judged, so that nothing is known about it. It "
        "is no pass."
    ),
    repair="The message says which piece is missing; supply it, or ask for something else.",
    example=None,
)
