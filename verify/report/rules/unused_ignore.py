"""`unused-ignore`."""

from verify.report.rules import Rule

RULE = Rule(
    id="unused-ignore",
    level="warning",
    title="An ignore comment that ignores nothing, or gives no reason",
    why=(
        "A comment in the source accepts a finding that is not on its line, names no known rule, "
        "or does not say why the finding is accepted."
    ),
    repair=(
        "Delete it, or write `# moe-verify: ignore[rule] reason`, so that nothing comes back "
        "unseen."
    ),
    example=None,
)
