"""`lost-past-end`."""

from verify.engines.sources import reading
from verify.report.rules import Example, Rule

RULE = Rule(
    id="lost-past-end",
    title="The last layer leaves its sum to a next layer that does not exist",
    why=(
        "The layer asks whether to fuse its all-reduce into the next layer's norm, and its "
        "communicator was not told which layer is the last. There the block skips its reduction "
        "and the final norm reads a partial sum."
    ),
    repair=f"Build the communicator with {reading().said.last_layer}.",
    example=Example(
        wrong="LayerCommunicator(...)  # not told is_last_layer",
        right="LayerCommunicator(..., is_last_layer=layer_id == num_layers - 1)",
        seen="0.5.11 - 0.5.20 qwen3_next.py",
    ),
)
