"""`group-too-narrow`."""

from verify.report.rules import Example, Rule

RULE = Rule(
    id="group-too-narrow",
    title="A sum leaves out ranks that hold slices",
    why=(
        "The step that completes a sum runs over fewer ranks than its parts are split over: a "
        "fused norm takes the expert group where experts are also split over the MoE tensor "
        "parallel group, or a sum runs within one copy of the experts although a shared expert is "
        "split over all ranks. The other ranks' slices are lost."
    ),
    repair="Sum over the group that the layer is split over.",
    example=Example(
        wrong="flashinfer_allreduce_norm(x, group=moe_ep)  # parts lie over moe_ep and moe_tp",
        right="flashinfer_allreduce_norm(x, group=tp)",
        seen="0.5.11 - 0.5.17 communicator.py with ep 2 of 4 (#32963)",
    ),
)
