"""`sharded-dense`."""

from verify.report.rules import Example, Rule

RULE = Rule(
    id="sharded-dense",
    title="A dense MLP is taken for complete and is sharded",
    why=(
        "With moe_dense_tp_size 1 a dense MLP runs on this rank's own rows and its output is "
        "taken for complete, but this model builds it sharded all the same. Its slices are not "
        "summed up, or are summed over ranks that hold other tokens."
    ),
    repair="Build it replicated where the flag is set, or refuse the flag for this model.",
    example=Example(
        wrong="self.mlp = MLP(...)  # moe_dense_tp_size 1 leaves its rows to this rank alone",
        right="self.mlp = MLP(..., tp_size=1 if moe_dense_tp_size == 1 else None)",
        seen="0.5.22 - 0.5.23, twelve models",
    ),
)
