"""`replay-hang`."""

from verify.report.rules import Rule

RULE = Rule(
    id="replay-hang",
    title="The source's own code waits forever",
    why=(
        "Run as it is on in-process ranks, some ranks wait in a collective that the others never "
        "enter. A server would hang until its watchdog ends it."
    ),
    repair="Let every rank of a group take the same branch.",
    example=None,
)
