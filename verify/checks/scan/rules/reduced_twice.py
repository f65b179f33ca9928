"""`reduced-twice`."""

from verify.report.rules import Example, Rule

RULE = Rule(
    id="reduced-twice",
    title="One block sums the same partial sums twice",
    why=(
        "Two reductions of one block run one after the other in the same case, so that the second "
        "adds up what the first has completed. On k ranks the output is about k times too large."
    ),
    repair="Keep one of the two.",
    example=Example(
        wrong="y = ep_all_reduce(experts(x)); y = all_reduce(y)  # over the same ranks",
        right="y = all_reduce(experts(x))",
        seen="none in 0.5.1 - 0.5.23; planted in tests",
    ),
)
