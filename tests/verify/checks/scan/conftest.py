"""A tiny source with upstream's building blocks, written for these tests."""

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from verify.checks.scan.scan import ScanResult, scan
from verify.engines.sources import open_source
from verify.source.source import SourceTree

LINEAR = """
class RowParallelLinear:
    def __init__(self, n_in, n_out, bias=True, reduce_results=True, tp_rank=None, tp_size=None):
        self.reduce_results = reduce_results

    def forward(self, x, skip_all_reduce=False):
        return x, None
"""

UTILS = """
class MoeA2ABackend:
    def is_none(self):
        return self == 0

    def is_deepep(self):
        return self == 1


def should_use_flashinfer_cutlass_moe_fp4_allgather():
    return get_moe_a2a_backend().is_none() and is_dp_attention_enabled() and FP4


def should_use_dp_reduce_scatterv():
    return (
        not should_use_flashinfer_cutlass_moe_fp4_allgather()
        and get_moe_a2a_backend().is_none()
        and is_dp_attention_enabled()
        and get_moe_expert_parallel_world_size() == get_attention_dp_size()
    )


def should_skip_post_experts_all_reduce(
    *, is_tp_path, use_reduce_scatter=False, should_allreduce_fusion=False
):
    if should_allreduce_fusion or use_reduce_scatter:
        return True
    if should_use_dp_reduce_scatterv():
        return True
    return is_tp_path and should_use_flashinfer_cutlass_moe_fp4_allgather()
"""

COMMUNICATOR = """
from sglang.srt.layers.moe.utils import should_use_dp_reduce_scatterv


def fusion_applies(batch):
    return SM90 and not is_dp_attention_enabled()


class LayerCommunicator:
    def __init__(self, modes, norm, allow_reduce_scatter=False, is_last_layer=False):
        self.allow_reduce_scatter = allow_reduce_scatter
        self.is_last_layer = is_last_layer

    def should_use_reduce_scatter(self, batch):
        if not self.allow_reduce_scatter:
            return False
        return is_dp_attention_enabled() and batch.padding.is_max_len()

    def should_fuse_mlp_allreduce_with_next_layer(self, batch):
        return fusion_applies(batch) and not self.is_last_layer
"""

HEAD = """
from sglang.srt.distributed import (
    moe_expert_parallel_all_reduce,
    moe_tensor_model_parallel_all_reduce,
    tensor_model_parallel_all_reduce,
)
from sglang.srt.layers.communicator import LayerCommunicator
from sglang.srt.layers.layernorm import RMSNorm
from sglang.srt.layers.linear import RowParallelLinear
from sglang.srt.layers.moe.experts import FusedMoE
from sglang.srt.layers.moe.utils import (
    should_skip_post_experts_all_reduce,
    should_use_dp_reduce_scatterv,
    should_use_flashinfer_cutlass_moe_fp4_allgather,
)
"""

BLOCK = """
class Block:
    def __init__(self, config):
        self.tp_size = get_tensor_model_parallel_world_size()
        self.experts = FusedMoE(num_experts=config.n)

    def forward(self, x, batch=None, should_allreduce_fusion=False, use_reduce_scatter=False):
        out = self.experts(x)
        if self.tp_size > 1 and not should_skip_post_experts_all_reduce(
            is_tp_path=True,
            use_reduce_scatter=use_reduce_scatter,
            should_allreduce_fusion=should_allreduce_fusion,
        ):
            out = tensor_model_parallel_all_reduce(out)
        return out
"""

LAYER = """
class Layer:
    def __init__(self, config, layer_id):
        self.mlp = Block(config)
        self.norm = RMSNorm(config.hidden)
        self.comm = LayerCommunicator(
            None, self.norm, allow_reduce_scatter=True, is_last_layer=layer_id == config.last
        )

    def forward(self, positions, hidden_states, batch, residual):
        hidden_states, residual = self.comm.prepare_mlp(hidden_states, residual, batch)
        fuse = self.comm.should_fuse_mlp_allreduce_with_next_layer(batch)
        scatter = self.comm.should_use_reduce_scatter(batch)
        hidden_states = self.mlp(hidden_states, batch, fuse, scatter)
        if fuse:
            hidden_states._sglang_needs_allreduce_fusion = True
        else:
            hidden_states, residual = self.comm.postprocess_layer(hidden_states, residual, batch)
        return hidden_states, residual
"""

LIBRARY: Mapping[str, str] = {
    "layers/linear.py": LINEAR,
    "layers/moe/utils.py": UTILS,
    "layers/moe/experts.py": "class FusedMoE:\n    pass\n",
    "layers/layernorm.py": "class RMSNorm:\n    pass\n",
    "layers/communicator.py": COMMUNICATOR,
}


def write_source(root: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write `files` (paths under sglang/srt) into `root`; returns it."""
    for name, text in files.items():
        file = root / "sglang" / "srt" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        raw = text if isinstance(text, bytes) else textwrap.dedent(text).encode()
        file.write_bytes(raw)
    return root


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., SourceTree]:
    """Open a source made of the tiny library and one model file."""

    def make(*model: str, library: Mapping[str, str] | None = None) -> SourceTree:
        files = {**LIBRARY, **(library or {}), "models/sample.py": "".join((HEAD, *model))}
        return open_source(str(write_source(tmp_path, files)))

    return make


@pytest.fixture
def scanned(source: Callable[..., SourceTree]) -> Callable[..., ScanResult]:
    """Scan a source made of the tiny library and one model file."""

    def make(*model: str, library: Mapping[str, str] | None = None) -> ScanResult:
        return scan(source(*model, library=library))

    return make


class Sample:
    """The pieces of a sound model; tests break them with `str.replace`."""

    block = BLOCK
    layer = LAYER
    utils = UTILS
    linear = LINEAR
    communicator = COMMUNICATOR
    head = HEAD
    library = LIBRARY

    @staticmethod
    def changed(piece: str, old: str, new: str) -> str:
        """`piece` with `old` replaced; `old` must be there."""
        assert old in piece, f"nothing to change: {old!r}"
        return piece.replace(old, new)


@pytest.fixture
def sample() -> type[Sample]:
    return Sample
