"""A report says on how many steps that are not exact its verdicts rest, and lists them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from verify.checks.prove.source import read
from verify.checks.scan.command import report
from verify.checks.scan.scan import ScanResult
from verify.report.render.table import render

HEAD = "        out = self.experts(x)\n"
STEPS = {
    "call": (HEAD + "        out = scaled(out)\n", "call not followed", "1 call not followed"),
    "loop": (
        "        out = x\n        for part in batch:\n            out = self.experts(part)\n",
        "loop run once",
        "1 loop run once",
    ),
    "handler": (
        "        out = x\n        try:\n            out = self.experts(x)\n"
        "        except ValueError:\n            pass\n",
        "handler not run",
        "1 handler not run",
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_counted_and_listed(
    scanned: Callable[..., ScanResult], sample: Any, name: str
) -> None:
    code, kind, words = STEPS[name]
    block = sample.changed(sample.block, HEAD, code)
    made = report(scanned(block, sample.layer))
    (step,) = made.payload["approximated"]
    assert step["kind"] == kind
    assert len(step["layers"]) == 1
    assert made.summary.endswith(f"; verdicts rest on 1 approximation ({words}; --all lists them)")
    place = f"{step['file'].removeprefix('sglang/srt/')}:{step['line']}"
    assert place not in render(made)
    assert place in render(replace(made, everything=True))


def test_a_sound_sample_needs_none(scanned: Callable[..., ScanResult], sample: Any) -> None:
    made = report(scanned(sample.block, sample.layer))
    assert made.payload["approximated"] == []
    assert "approximation" not in made.summary


def test_a_layer_that_was_given_up_counts_none(
    scanned: Callable[..., ScanResult], sample: Any
) -> None:
    code = HEAD + "        out = self.forward(scaled(out))\n"
    result = scanned(sample.changed(sample.block, HEAD, code), sample.layer)
    assert result.unread
    assert not result.approximated


def test_prove_lists_the_same(
    scanned: Callable[..., ScanResult], source: Callable[..., Any], sample: Any
) -> None:
    block = sample.changed(sample.block, HEAD, STEPS["call"][0])
    seen = scanned(block, sample.layer).approximated
    assert seen
    assert read(source(block, sample.layer)).approximated == seen
