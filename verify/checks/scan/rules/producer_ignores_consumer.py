"""`producer-ignores-consumer`."""

from verify.report.rules import Example, Rule

RULE = Rule(
    id="producer-ignores-consumer",
    title="The layer announces a consumer that its producer is never told about",
    why=(
        "The layer tells its communicator that a later step may complete the sum, but what "
        "produces the sum takes no such flag and always reduces."
    ),
    repair="Pass the decision to the producer, or do not allow the later step.",
    example=Example(
        wrong="down_proj = RowParallelLinear(...)  # reduces always; the layer may scatter or fuse",
        right="down_proj(x, skip_all_reduce=fuse or use_reduce_scatter)",
        seen="0.5.11 - 0.5.20 step3_vl.py, qwen2.py",
    ),
)
