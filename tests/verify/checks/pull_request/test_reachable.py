"""Which rows some configuration produces."""

from dataclasses import replace

import pytest

from helper import SKIP_REASONS, MoeConfig, SkipReason, current_config, reasons, use_config
from helper.predicates import uses_dp_reduce_scatterv, uses_flashinfer_fp4_allgather
from verify.checks.pull_request.reachable import configurations, in_words, reach
from verify.logic import truth


def test_dp_with_fi_is_what_no_configuration_produces() -> None:
    missing = set(range(16)) - set(reach().rows)
    assert [truth.row_bits(row, 4) for row in sorted(missing)] == ["0011", "0111", "1011", "1111"]


def test_witnesses_are_witnesses() -> None:
    for values, config in reach().witness.items():
        assert values == (uses_dp_reduce_scatterv(config), uses_flashinfer_fp4_allgather(config))


def test_witnesses_are_the_smallest() -> None:
    assert [in_words(config) for config in reach().witness.values()] == [
        "",
        "tp_size=2 ep_size=2 attn_dp_size=2 enable_dp_attention=True",
        "tp_size=2 ep_size=2 attn_dp_size=2 enable_dp_attention=True "
        "moe_runner_backend=flashinfer_cutlass quantization=modelopt_fp4",
    ]


def test_more_ranks_show_nothing_new() -> None:
    """Four ranks stand for all: sizes of 8 and 3 produce no row that they do not."""
    known = set(reach().witness)
    for tp_size, group in ((8, 8), (8, 2), (6, 3), (3, 3)):
        for runner, quantization in (("auto", None), ("flashinfer_cutlass", "modelopt_fp4")):
            if runner == "flashinfer_cutlass" and group != tp_size:
                continue
            config = MoeConfig(
                tp_size=tp_size,
                ep_size=group,
                attn_dp_size=group,
                enable_dp_attention=True,
                moe_runner_backend=runner,
                quantization=quantization,
            )
            found = (uses_dp_reduce_scatterv(config), uses_flashinfer_fp4_allgather(config))
            assert found in known


def test_every_configuration_is_tried_once() -> None:
    assert len(set(configurations())) == len(configurations()) == reach().tried


def test_a_predicate_that_is_always_true_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed, not asserted: corrupting a predicate changes the answer."""

    def corrupt(reason: SkipReason) -> SkipReason:
        if reason.flag != "DP":
            return reason
        return replace(reason, value=lambda: current_config().enable_dp_attention)

    monkeypatch.setattr(reasons, "SKIP_REASONS", tuple(map(corrupt, SKIP_REASONS)))
    assert truth.row_bits(max(reach().rows), 4) == "1111"


def test_asking_leaves_no_configuration_behind() -> None:
    outer = MoeConfig(tp_size=2)
    with use_config(outer):
        reach()
        assert current_config() is outer
