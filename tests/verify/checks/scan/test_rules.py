"""Each rule is trusted because a corruption of a sound sample breaks it, and only it."""

from collections.abc import Callable
from typing import Any

import pytest

from verify.checks.scan.scan import ScanResult
from verify.report.report import Related

Scan = Callable[..., ScanResult]

DENSE = """
class Dense:
    def __init__(self, config, reduce_results=True):
        self.down = RowParallelLinear(config.n, config.h, reduce_results=reduce_results)

    def forward(self, x, batch=None, should_allreduce_fusion=False, use_reduce_scatter=False):
        x, _ = self.down(x, skip_all_reduce=should_allreduce_fusion or use_reduce_scatter)
        return x
"""

EP_AND_TP = """
        if self.ep_size > 1 and not should_skip_post_experts_all_reduce(
            is_tp_path=False,
            use_reduce_scatter=use_reduce_scatter,
            should_allreduce_fusion=should_allreduce_fusion,
        ):
            out = moe_expert_parallel_all_reduce(out)
        if self.tp_size > 1 and not should_skip_post_experts_all_reduce(
            is_tp_path=True,
            use_reduce_scatter=use_reduce_scatter,
            should_allreduce_fusion=should_allreduce_fusion,
        ):
            out = moe_tensor_model_parallel_all_reduce(out)
        return out
"""


def found(result: ScanResult) -> list[tuple[str, str | None]]:
    return sorted((finding.rule, finding.row) for finding in result.findings)


def two_groups(sample: Any) -> str:
    start = sample.block.index("        if self.tp_size")
    block = sample.block[:start] + EP_AND_TP.lstrip("\n")
    old = "self.tp_size = get_tensor_model_parallel_world_size()"
    new = (
        "self.tp_size = get_moe_tensor_parallel_world_size()\n"
        "        self.ep_size = get_moe_expert_parallel_world_size()"
    )
    return str(sample.changed(block, old, new))


def test_sound_sample_is_clean_and_covered(scanned: Scan, sample: Any) -> None:
    result = scanned(sample.block, sample.layer)
    assert found(result) == []
    assert [(s.verdict, s.site.skips_on) for s in result.sites] == [
        ("covered", ("AF", "RS", "DP", "FI"))
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("            should_allreduce_fusion=should_allreduce_fusion,\n", "", "1000"),
        ("            use_reduce_scatter=use_reduce_scatter,\n", "", "0100"),
    ],
)
def test_guard_that_does_not_ask_for_a_flag(
    scanned: Scan, sample: Any, old: str, new: str, expected: str
) -> None:
    result = scanned(sample.changed(sample.block, old, new), sample.layer)
    assert ("missing-skip", expected) in found(result)
    assert {row for _, row in found(result)} == {expected}


def test_guard_that_forgets_a_configured_flag(scanned: Scan, sample: Any) -> None:
    utils = sample.changed(
        sample.utils, "    if should_use_dp_reduce_scatterv():\n        return True\n", ""
    )
    result = scanned(sample.block, sample.layer, library={"layers/moe/utils.py": utils})
    assert found(result) == [("missing-skip", "0010")]


def test_unguarded_block_ignores_its_consumers(scanned: Scan, sample: Any) -> None:
    start = sample.block.index(" and not should_skip")
    end = sample.block.index("):\n", start) + 1
    result = scanned(sample.block[:start] + sample.block[end:], sample.layer)
    assert {rule for rule, _ in found(result)} == {"producer-ignores-consumer"}
    assert {row for _, row in found(result)} >= {"0001", "0010"}


def test_flag_computed_but_dropped_on_the_way(scanned: Scan, sample: Any) -> None:
    layer = sample.changed(
        sample.layer,
        "self.mlp(hidden_states, batch, fuse, scatter)",
        "self.mlp(hidden_states, batch, fuse)",
    )
    assert found(scanned(sample.block, layer)) == [("flag-lost", "0100")]


def test_flag_dropped_on_an_inner_call(scanned: Scan, sample: Any) -> None:
    block = sample.changed(sample.block, "def forward(", "def inner(")
    block += (
        "\n    def forward(self, x, batch=None, should_allreduce_fusion=False, "
        "use_reduce_scatter=False):\n"
        "        return self.inner(x, batch, use_reduce_scatter=use_reduce_scatter)\n"
    )
    assert found(scanned(block, sample.layer)) == [("flag-lost", "1000")]


def test_flags_that_change_places(scanned: Scan, sample: Any) -> None:
    # each still skips, so both sums are left to a consumer: this is not wrong
    layer = sample.changed(sample.layer, "batch, fuse, scatter)", "batch, scatter, fuse)")
    assert found(scanned(sample.block, layer)) == []


def test_other_value_in_a_flags_place(scanned: Scan, sample: Any) -> None:
    layer = sample.changed(sample.layer, "batch, fuse, scatter)", "fuse, scatter)")
    rules = {rule for rule, _ in found(scanned(sample.block, layer))}
    assert rules & {"flag-lost", "flag-misbound", "lost-sum"}


def test_skip_that_nobody_completes(scanned: Scan, sample: Any) -> None:
    start = sample.layer.index("        if fuse:")
    layer = sample.layer[:start] + (
        "        return self.comm.postprocess_layer(hidden_states, residual, batch)\n"
    )
    assert found(scanned(sample.block, layer)) == [("lost-sum", "1000")]


def test_ep_and_tp_guards_that_drift_apart(scanned: Scan, sample: Any) -> None:
    block = two_groups(sample)
    sound = {row for _, row in found(scanned(block, sample.layer))}
    assert sound == {"0001"}, "the EP path does not ask for FI"
    drifted = block.replace("            use_reduce_scatter=use_reduce_scatter,\n", "", 1)
    assert ("ep-tp-drift", "0100") in found(scanned(drifted, sample.layer))


def test_dense_layer_meets_the_same_consumer(scanned: Scan, sample: Any) -> None:
    layer = sample.changed(sample.layer, "Block(config)", "Dense(config)")
    result = scanned(DENSE, layer)
    assert found(result) == [("missing-skip", "0010")]
    assert result.findings[0].cls == "Dense"
    told = DENSE.replace(
        "use_reduce_scatter)\n", "use_reduce_scatter or should_use_dp_reduce_scatterv())\n"
    )
    assert found(scanned(told, layer)) == []


def test_dense_layer_that_never_reduces(scanned: Scan, sample: Any) -> None:
    layer = sample.changed(sample.layer, "Block(config)", "Dense(config, reduce_results=False)")
    result = scanned(DENSE, layer)
    assert ("lost-sum", "0000") in found(result)


def test_every_producer_of_a_layer_counts(scanned: Scan, sample: Any) -> None:
    layer = sample.changed(
        sample.layer,
        "self.mlp = Block(config)",
        "self.mlp = Block(config) if config.sparse else Dense(config)",
    )
    result = scanned(sample.block, DENSE, layer)
    assert {(f.cls, f.row) for f in result.findings} == {("Dense", "0010")}
    assert "not config.sparse" in result.findings[0].conditions


def test_without_a_consumer_reducing_is_right(scanned: Scan, sample: Any) -> None:
    start = sample.layer.index("        self.comm")
    layer = sample.layer[:start] + (
        "\n    def forward(self, positions, hidden_states, batch):\n"
        "        return self.mlp(self.norm(hidden_states))\n"
    )
    result = scanned(sample.block, layer)
    assert found(result) == []
    assert [s.verdict for s in result.sites] == ["self-contained"]


def test_reduced_twice_inside_the_layer(scanned: Scan, sample: Any) -> None:
    layer = sample.changed(
        sample.layer,
        "        if fuse:",
        "        hidden_states = tensor_model_parallel_all_reduce(hidden_states)\n        if fuse:",
    )
    assert ("reduced-twice", "0000") in found(scanned(sample.block, layer))


def test_summary_adds_up(scanned: Scan, sample: Any) -> None:
    attention = (
        "\nclass Attention:\n    def forward(self, x):\n        self.attn = RadixAttention(1)\n"
        "        return tensor_model_parallel_all_reduce(x)\n"
        "\nclass Orphan:\n    def forward(self, x):\n"
        "        return tensor_model_parallel_all_reduce(x)\n"
    )
    result = scanned(sample.block, sample.layer, attention)
    assert result.counts == {
        "covered": 1,
        "finding": 0,
        "self-contained": 0,
        "unresolved": 1,
        "set aside": 1,
    }
    assert sum(result.counts.values()) == 3


def test_message_says_what_where_and_what_to_do(scanned: Scan, sample: Any) -> None:
    block = sample.changed(sample.block, "            use_reduce_scatter=use_reduce_scatter,\n", "")
    (finding,) = scanned(block, sample.layer).findings
    assert finding.message == (
        "where the communicator reduce-scatters, tensor_model_parallel_all_reduce sums the output"
    )
    assert finding.sums == "the communicator's scatter after the MLP sums it again"
    assert finding.related == (
        Related(
            file="sglang/srt/models/sample.py",
            line=47,
            what="hands it to the communicator's scatter after the MLP",
        ),
    )
    assert finding.rows == ("0100",)
    assert finding.fix == "skip the reduction on RS"
    assert (finding.file, finding.cls, finding.method) == (
        "sglang/srt/models/sample.py",
        "Block",
        "forward",
    )
