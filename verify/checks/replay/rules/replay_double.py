"""`replay-double`."""

from verify.report.rules import Rule

RULE = Rule(
    id="replay-double",
    title="The source's own code counts a partial sum more than once",
    why=(
        "Run as it is on in-process ranks, the layer hands on a tensor in which some rank's "
        "partial sum is counted several times."
    ),
    repair="Find the two steps that both sum, and skip the first.",
    example=None,
)
