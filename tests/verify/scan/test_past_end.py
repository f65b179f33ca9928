"""A layer that leaves its sum to the next one must know when it is the last."""

from collections.abc import Callable
from typing import Any

from verify.scan.scan import ScanResult


def test_communicator_that_is_not_told_the_last_layer(
    scanned: Callable[..., ScanResult], sample: Any
) -> None:
    layer = sample.changed(sample.layer, ", is_last_layer=layer_id == config.last", "")
    (finding,) = scanned(sample.block, layer).findings
    assert (finding.rule, finding.row) == ("lost-past-end", "1000")
    assert "final norm" in finding.message


def test_layer_that_never_fuses_need_not_know(
    scanned: Callable[..., ScanResult], sample: Any
) -> None:
    layer = sample.changed(sample.layer, ", is_last_layer=layer_id == config.last", "")
    start = layer.index("        fuse = ")
    end = layer.index("        scatter = ")
    layer = layer[:start] + "        fuse = False\n" + layer[end:]
    assert scanned(sample.block, layer).findings == ()
