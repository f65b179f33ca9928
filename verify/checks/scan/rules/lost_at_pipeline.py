"""`lost-at-pipeline`."""

from verify.report.rules import Example, Rule

RULE = Rule(
    id="lost-at-pipeline",
    title="A sum left to the next layer is dropped between pipeline stages",
    why=(
        "The last layer of a pipeline stage skips its reduction because the next layer's norm "
        "would sum its output up. The tensor that is sent to the next stage has lost the mark "
        "that says so, and nobody sums it up."
    ),
    repair="Complete the sum before sending.",
    example=Example(
        wrong="sent = PPProxyTensors({'hidden_states': x})  # x still owes its sum",
        right="should_fuse = ... and not is_last_layer_of_the_stage",
        seen="0.5.1 - 0.5.20 with fusion and --pp-size 2",
    ),
)
