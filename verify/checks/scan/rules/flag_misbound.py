"""`flag-misbound`."""

from verify.report.rules import Example, Rule

RULE = Rule(
    id="flag-misbound",
    title="A flag arrives in another parameter",
    why=(
        "A positional argument lands in the parameter of a different flag, or another value lands "
        "in a flag's parameter. The guard then answers a question nobody asked."
    ),
    repair="Pass flags by keyword.",
    example=Example(
        wrong="self.mlp(x, use_reduce_scatter)  # the second parameter is should_allreduce_fusion",
        right="self.mlp(x, use_reduce_scatter=use_reduce_scatter)",
        seen="none in 0.5.1 - 0.5.23; planted in tests",
    ),
)
