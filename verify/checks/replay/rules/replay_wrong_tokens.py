"""`replay-wrong-tokens`."""

from verify.report.rules import Rule

RULE = Rule(
    id="replay-wrong-tokens",
    title="The source's own code sums different tokens",
    why="Run as it is on in-process ranks, a partial sum of one token is added to another token.",
    repair=(
        "Ranks that hold different tokens must be gathered first, or summed by a reduce-scatter."
    ),
    example=None,
)
