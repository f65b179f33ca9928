"""No finding rests on a configuration that the source itself refuses."""

from collections.abc import Callable
from typing import Any

import pytest

from verify.checks.scan.scan import ScanResult

Scan = Callable[..., ScanResult]


def rules(result: ScanResult) -> list[tuple[str, str | None]]:
    """Those of the sample's block; a predicate that was made deaf has one of its own."""
    assert result.unread == ()
    return [(each.rule, each.row) for each in result.findings if each.file.endswith("sample.py")]


def ignores(sample: Any, flag: str) -> Any:
    """The sound block, its guard deaf to one flag that is read from the configuration."""
    helper = (
        sample.changed(sample.utils, f"return is_tp_path and {flag}()", "return False")
        if "cutlass" in flag
        else sample.changed(sample.utils, f"    if {flag}():\n        return True\n", "")
    )
    return {"layers/moe/utils.py": helper}


FP4 = "should_use_flashinfer_cutlass_moe_fp4_allgather"
DP = "should_use_dp_reduce_scatterv"
STOPS = """
class Fp4Method:
    def apply(self, layer):
        if self.enable_flashinfer_cutlass_moe:
            assert (
                not self.moe_runner_config.weigh_inputs
            ), "not supported"
"""


def test_setting_that_the_fp4_experts_refuse(scanned: Scan, sample: Any) -> None:
    deaf = ignores(sample, FP4)
    weighs = sample.changed(sample.block, "(num_experts=", "(weigh_inputs=True, num_experts=")
    stops = {**deaf, "layers/quantization/modelopt_quant.py": STOPS}
    assert rules(scanned(weighs, sample.layer, library=deaf)) == [("missing-skip", "0001")]
    assert rules(scanned(sample.block, sample.layer, library=stops)) == [("missing-skip", "0001")]
    assert rules(scanned(weighs, sample.layer, library=stops)) == []


ATTENTION = """

class Attention:
    def __init__(self):
        self.attn = RadixAttention({})
"""


@pytest.mark.parametrize(
    ("ranks", "reached"),
    [
        ("get_tensor_model_parallel_world_size()", False),
        ("get_attention_tp_size()", True),
        ("", True),
    ],
)
def test_attention_split_over_all_ranks_has_mixed_tokens_before(
    scanned: Scan, sample: Any, ranks: str, *, reached: bool
) -> None:
    result = scanned(
        sample.block, sample.layer, ATTENTION.format(ranks), library=ignores(sample, DP)
    )
    assert rules(result) == ([("missing-skip", "0010")] if reached else [])


MOVES = "def gather(x):\n    memcpy_triton(x)\n"


def test_cpu_cannot_move_tokens_by_a_gpu_kernel(scanned: Scan, sample: Any) -> None:
    deaf = ignores(sample, DP)
    on_cpu = sample.changed(
        sample.block,
        "        out = self.experts(x)\n",
        "        out = self.experts(x)\n        if not is_cpu():\n            return summed(out)\n",
    )
    moves = {**deaf, "layers/dp_attention.py": MOVES}
    chooses = {**deaf, "layers/dp_attention.py": "copy = c if is_cpu() else g\n" + MOVES}
    expected = ("missing-skip", "0010")
    assert expected not in rules(scanned(on_cpu, sample.layer, library=moves))
    assert expected in rules(scanned(on_cpu, sample.layer, library=chooses))


SIZES = """
class GroupCoordinator:
    def reduce_scatterv(self, x, sizes=None):
        assert len(sizes) == self.world_size
"""


def test_reduce_scatterv_with_several_ranks_a_size_stops(scanned: Scan, sample: Any) -> None:
    block = sample.changed(
        sample.block,
        "        if self.tp_size > 1 and not",
        "        if get_attention_tp_size() > 1:\n"
        "            return tensor_model_parallel_all_reduce(out)\n"
        "        if self.tp_size > 1 and not",
    )
    stops = {"distributed/parallel_state.py": SIZES}
    ignores = ("producer-ignores-consumer", "0010")
    assert ignores in rules(scanned(block, sample.layer))
    assert ignores not in rules(scanned(block, sample.layer, library=stops))


def test_attribute_that_only_a_skipped_constructor_sets_is_read_as_it_would_be(
    scanned: Scan, sample: Any
) -> None:
    base = (
        "class Base:\n    def __init__(self):\n"
        "        self._moves = not get_moe_a2a_backend().is_none()\n\n\n"
    )
    block = sample.changed(sample.block, "class Block:", "class Block(Base):")
    skips = sample.changed(
        block,
        "        if self.tp_size > 1 and not",
        "        if self._moves:\n            return out\n        if self.tp_size > 1 and not",
    )
    assert rules(scanned(base, skips, sample.layer)) == []
    unset = base.replace("self._moves =", "self._other =")
    assert rules(scanned(unset, skips, sample.layer)) == [("lost-sum", "0000")]


KERNEL = "            torch.ops.symm.{}(out, 'sum', group)\n"


@pytest.mark.parametrize(
    ("kernel", "sums"),
    [
        ("multimem_all_reduce_", True),
        ("push_one_shot", True),
        ("two_shot_all_reduce_fused", True),
        ("multimem_all_gather_", False),
        ("can_multimem", False),
    ],
)
def test_kernel_that_sums_in_place(scanned: Scan, sample: Any, kernel: str, *, sums: bool) -> None:
    block = sample.changed(
        sample.block,
        "            out = tensor_model_parallel_all_reduce(out)\n",
        KERNEL.format(kernel),
    )
    assert (rules(scanned(block, sample.layer)) == []) == sums
