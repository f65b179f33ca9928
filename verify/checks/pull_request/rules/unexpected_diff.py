"""`unexpected-diff`."""

from verify.report.rules import Rule

RULE = Rule(
    id="unexpected-diff",
    title="The helper and the original guard disagree where they must not",
    why=(
        "In the row shown the helper and the guard it replaced give different answers, and the "
        "site's category does not allow it."
    ),
    repair="Either the category is wrong or the migration changed what the model computes.",
    example=None,
)
