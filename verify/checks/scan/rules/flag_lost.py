"""`flag-lost`."""

from verify.report.rules import Example, Rule

RULE = Rule(
    id="flag-lost",
    title="A flag is computed and never reaches the guard that needs it",
    why=(
        "The layer decides that a later step will complete the sum, but an inner call does not "
        "pass the decision on, so that the block reduces too and the sum is counted twice."
    ),
    repair="Pass the flag through every call between the layer and the guard.",
    example=Example(
        wrong="self.mlp(x, forward_batch)  # the layer has decided to fuse, nobody tells",
        right="self.mlp(x, forward_batch, should_allreduce_fusion=fuse)",
        seen="0.5.4.post1 - 0.5.4.post3 glm4_moe.py: the dual-stream path",
    ),
)
