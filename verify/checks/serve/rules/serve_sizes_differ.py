"""`serve-sizes-differ`."""

from verify.report.rules import Rule

RULE = Rule(
    id="serve-sizes-differ",
    title="Ranks of the engine meet a collective with different sizes",
    why=(
        "The engine accepts this launch, and its ranks then enter one collective with tensors of "
        "different sizes: the model does not know this layout. The server stops or hangs in "
        "service."
    ),
    repair="Refuse the launch for this model, or teach the model the layout.",
    example=None,
)
