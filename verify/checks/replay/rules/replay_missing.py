"""`replay-missing`."""

from verify.report.rules import Rule

RULE = Rule(
    id="replay-missing",
    title="The source's own code loses a partial sum",
    why=(
        "Run as it is on in-process ranks, the layer hands on a tensor that lacks some rank's "
        "partial sum."
    ),
    repair="Reduce in this case, or make the later step sum over the same ranks.",
    example=None,
)
