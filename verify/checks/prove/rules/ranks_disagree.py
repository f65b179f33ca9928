"""`ranks-disagree`."""

from verify.report.rules import Rule

RULE = Rule(
    id="ranks-disagree",
    title="Real ranks and the ledger disagree",
    why=(
        "A layer on real ranks added its partial sums up otherwise than the ledger says it must, "
        "or its values do not fit its counts."
    ),
    repair=(
        "Either the ledger's steps or the code on the ranks is wrong: run the one case again and "
        "compare its counts rank by rank."
    ),
    example=None,
)
