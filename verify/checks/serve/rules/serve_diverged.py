"""`serve-diverged`."""

from verify.report.rules import Rule

RULE = Rule(
    id="serve-diverged",
    title="The engine gives other answers on several ranks than on one",
    why=(
        "The engine itself was started with the same weights and tokens on one rank and on "
        "several, and its log-probabilities differ by more than float32 explains. Users of this "
        "launch get wrong answers without an error."
    ),
    repair="Look at the module named first.",
    example=None,
)
