"""`not-analysed`."""

from verify.report.rules import Rule

RULE = Rule(
    id="not-analysed",
    title="What was asked for could not be looked at",
    why=(
        "A file could not be read, a reduction not followed or a case that was named not run, so "
        "that nothing is known about it. It is no pass."
    ),
    repair="The message says which piece is missing; supply it, ask for "
    "something else, or accept it in a baseline, with the reason.",
    example=None,
)
