"""Fusion under attention data parallelism (#11632): what excludes it is the source's own word."""

from collections.abc import Callable
from typing import Any

import pytest

from verify.checks.scan.scan import ScanResult

Scan = Callable[..., ScanResult]

FOLLOWED_NOWHERE = "fusion_applies(batch) and not self.is_last_layer"


@pytest.mark.parametrize(
    ("answer", "rows"),
    [
        ("batch.small and not self.is_last_layer", True),
        ("batch.small and not is_dp_attention_enabled() and not self.is_last_layer", False),
        # it may say so itself, and nobody has followed it
        (FOLLOWED_NOWHERE, False),
    ],
    ids=["not excluded", "excluded", "not followed"],
)
def test_predicate_that_admits_rows_of_attention_dp(
    scanned: Scan, sample: Any, answer: str, rows: bool
) -> None:
    text = sample.communicator.replace(FOLLOWED_NOWHERE, answer)
    assert answer in text
    library = {"layers/communicator.py": text}
    result = scanned(sample.block, sample.layer, library=library)
    found = [f for f in result.findings if "attention data parallelism" in f.message]
    assert [f.row for f in found] == (["1100"] if rows else [])
    assert all(f.rule == "lost-sum" and "1100" in f.rows for f in found)
