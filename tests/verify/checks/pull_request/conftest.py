"""A tiny source, written from the oracles: what 0.5.11 would be, were it nothing but its calls."""

from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import pytest

from oracles import SITES, Site

UTILS = """\
def should_use_flashinfer_cutlass_moe_fp4_allgather():
    return (
        not DISABLE_FLASHINFER_CUTLASS_MOE_FP4_ALLGATHER
        and get_moe_a2a_backend().is_none()
        and get_moe_runner_backend().is_flashinfer_cutlass()
        and is_dp_attention_enabled()
        and MOE_QUANTIZATION == "modelopt_fp4"
        and get_moe_expert_parallel_world_size() == get_attention_dp_size()
    )


def should_use_dp_reduce_scatterv():
    return (
        not should_use_flashinfer_cutlass_moe_fp4_allgather()
        and get_moe_a2a_backend().is_none()
        and is_dp_attention_enabled()
        and get_attention_dp_size() > 1
        and get_moe_expert_parallel_world_size() == get_attention_dp_size()
    )


def should_skip_post_experts_all_reduce(
    *, is_tp_path, use_reduce_scatter=False, should_allreduce_fusion=False
):
    if should_allreduce_fusion or use_reduce_scatter or should_use_dp_reduce_scatterv():
        return True
    return is_tp_path and should_use_flashinfer_cutlass_moe_fp4_allgather()
"""
IMPORTS = """\
from sglang.srt.layers.moe.utils import (
    should_skip_post_experts_all_reduce,
    should_use_dp_reduce_scatterv,
    should_use_flashinfer_cutlass_moe_fp4_allgather,
)
"""
NAMES = {"AF": "should_allreduce_fusion", "RS": "use_reduce_scatter"}
SPELT = {
    **NAMES,
    "DP": "should_use_dp_reduce_scatterv()",
    "FI": "should_use_flashinfer_cutlass_moe_fp4_allgather()",
}
Guard = Callable[[Site], str]


def migrated(site: Site) -> str:
    passes = "".join(f", {keyword}={NAMES[flag]}" for keyword, flag in site.passes.items())
    return f"not should_skip_post_experts_all_reduce(is_tp_path={site.path == 'TP'}{passes})"


def original(site: Site) -> str:
    words = (SPELT.get(word, word) for word in site.guard.split())
    return " ".join(words)


def model_text(sites: list[Site], guard: Guard) -> str:
    lines = [IMPORTS]
    for cls, of_class in groupby(sites, key=lambda site: site.cls):
        lines += [f"class {cls}:"]
        for method, of_method in groupby(of_class, key=lambda site: site.method):
            reductions = list(of_method)
            flags = "".join(f", {NAMES[flag]}=False" for flag in reductions[0].accepts)
            lines += [f"    def {method}(self, hidden_states{flags}):"]
            for site in reductions:
                lines += [
                    f"        if {site.size_gate} > 1 and {guard(site)}:",
                    f"            hidden_states = {site.collective}(hidden_states)",
                ]
            lines += ["        return hidden_states", ""]
    return "\n".join(lines)


def write_source(folder: Path, guard: Guard) -> Path:
    utils = folder / "sglang/srt/layers/moe/utils.py"
    models = folder / "sglang/srt/models"
    utils.parent.mkdir(parents=True)
    models.mkdir()
    utils.write_text(UTILS)
    for model, sites in groupby(SITES, key=lambda site: site.model):
        (models / f"{model}.py").write_text(model_text(list(sites), guard))
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source with every migrated call as the oracles state it."""
    return write_source(tmp_path / "source", migrated)


@pytest.fixture
def original_source(tmp_path: Path) -> Path:
    """A source with every original guard, and no helper."""
    folder = write_source(tmp_path / "source", original)
    utils = folder / "sglang/srt/layers/moe/utils.py"
    utils.write_text(UTILS[: UTILS.index("def should_skip")])
    return folder
