"""A layer that leaves its sum to the next one must know when it is the last."""

from collections.abc import Callable
from typing import Any

from verify.checks.scan.scan import ScanResult


def test_communicator_that_is_not_told_the_last_layer(
    scanned: Callable[..., ScanResult], sample: Any
) -> None:
    layer = sample.changed(sample.layer, ", is_last_layer=layer_id == config.last", "")
    (finding,) = scanned(sample.block, layer).findings
    assert (finding.rule, finding.row) == ("lost-past-end", "1000")
    assert "final norm" in finding.sums


def test_layer_that_never_fuses_need_not_know(
    scanned: Callable[..., ScanResult], sample: Any
) -> None:
    layer = sample.changed(sample.layer, ", is_last_layer=layer_id == config.last", "")
    start = layer.index("        fuse = ")
    end = layer.index("        scatter = ")
    layer = layer[:start] + "        fuse = False\n" + layer[end:]
    assert scanned(sample.block, layer).findings == ()


MODEL = """
class Model:
    def __init__(self, config):
        self.layers = make_layers(config.n, lambda idx: Layer(config, idx))

    def forward(self, ids, positions, batch):
        for layer in self.layers:
            hidden_states, residual = layer(positions, ids, batch, None)
        if not self.pp_group.is_last_rank:
            return PPProxyTensors({"hidden_states": hidden_states})
        return hidden_states
"""


def test_sum_dropped_between_pipeline_stages(
    scanned: Callable[..., ScanResult], sample: Any
) -> None:
    (finding,) = scanned(sample.block, sample.layer, MODEL).findings
    assert (finding.rule, finding.row, finding.cls) == ("lost-at-pipeline", "1000", "Model")
    completes = MODEL.replace(
        "            return PP",
        "            if getattr(hidden_states, '_sglang_needs_allreduce_fusion', False):\n"
        "                hidden_states = tensor_model_parallel_all_reduce(hidden_states)\n"
        "            return PP",
    )
    assert scanned(sample.block, sample.layer, completes).findings == ()
