"""A layer that gathers and scatters rows by hand: who sums is what it does in between."""

from collections.abc import Callable
from typing import Any

from verify.checks.scan.scan import ScanResult

Scan = Callable[..., ScanResult]

LAYER = """
class Layer:
    def __init__(self, config, layer_id):
        self.mlp = Block(config)
        self.norm = RMSNorm(config.hidden)

    def forward(self, positions, hidden_states, batch, residual):
        gathers = get_attention_dp_size() > 1 and get_moe_a2a_backend().is_none()
        if gathers:
            hidden_states, local = get_global_dp_buffer(), hidden_states
            dp_gather_partial(hidden_states, local, batch)
        hidden_states = self.mlp(hidden_states, batch)
        if gathers:
            hidden_states, everyones = get_local_dp_buffer(), hidden_states
            dp_scatter(hidden_states, everyones, batch)
        return hidden_states
"""
SUMS = """            if should_use_dp_reduce_scatterv():
                get_tp_group().reduce_scatterv(everyones, output=hidden_states)
            else:
                dp_scatter(hidden_states, everyones, batch)
"""


def test_block_that_leaves_its_sum_to_a_scatter_by_hand(scanned: Scan, sample: Any) -> None:
    (finding,) = scanned(sample.block, LAYER).findings
    assert (finding.rule, finding.row, finding.cls) == ("lost-sum", "0010", "Block")
    assert "dp_scatter, which moves rows and sums nothing up" in finding.sums
    scatter = "            dp_scatter(hidden_states, everyones, batch)\n"
    assert scanned(sample.block, sample.changed(LAYER, scatter, SUMS)).findings == ()
    always = sample.changed(
        sample.utils, "    if should_use_dp_reduce_scatterv():", "    if False:"
    )
    assert scanned(sample.block, LAYER, library={"layers/moe/utils.py": always}).findings == ()


def test_block_of_another_file_is_found_behind_the_files_name(scanned: Scan, sample: Any) -> None:
    elsewhere = {"models/blocks.py": sample.head + sample.block}
    layer = "import sglang.srt.models.blocks as blocks\n" + sample.changed(
        LAYER, "Block(config)", "blocks.Block(config)"
    )
    (finding,) = scanned(layer, library=elsewhere).findings
    assert (finding.rule, finding.row) == ("lost-sum", "0010")
    assert finding.file == "sglang/srt/models/blocks.py"
