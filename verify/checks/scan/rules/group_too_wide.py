"""`group-too-wide`."""

from verify.report.rules import Example, Rule

RULE = Rule(
    id="group-too-wide",
    title="A sum takes in another copy of the experts",
    why=(
        "With moe_dp_size above 1 there are several copies of the experts, each split over ranks "
        "of its own. The block sums its routed output over the whole tensor-parallel group, so "
        "that every expert counts once for each copy."
    ),
    repair=(
        "Sum over the expert and the MoE tensor-parallel group, or refuse the setting for this "
        "model."
    ),
    example=Example(
        wrong="y = tensor_model_parallel_all_reduce(y)  # moe_dp_size copies of the experts in it",
        right="y = moe_tensor_model_parallel_all_reduce(moe_expert_parallel_all_reduce(y))",
        seen="0.5.9 - 0.5.23, several models with --moe-dp-size 2",
    ),
)
