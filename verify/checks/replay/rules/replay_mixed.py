"""`replay-mixed`."""

from verify.report.rules import Rule

RULE = Rule(
    id="replay-mixed",
    title="The source's own code counts some partial sums twice and loses others",
    why="Run as it is on in-process ranks, counts differ from one in both directions.",
    repair="Often a reduction runs over another group than the one that holds the parts.",
    example=None,
)
