"""`replay-crash`."""

from verify.report.rules import Rule

RULE = Rule(
    id="replay-crash",
    title="The source's own code stops",
    why=(
        "Run as it is on in-process ranks, the layer raised in a legal deployment: sizes that do "
        "not fit a group, or ranks that enter different collectives."
    ),
    repair="The message names the rank and the line.",
    example=None,
)
