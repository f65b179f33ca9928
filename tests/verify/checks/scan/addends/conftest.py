"""A sound model that adds a shared expert and an identity part, and its tiny library."""

import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import pytest

from verify.checks.scan.scan import ScanResult

UTILS = """
class MoeA2ABackend:
    NONE = "none"
    DEEPEP = "deepep"
    NIXL = "nixl"
    PLANNED = "planned"

    def is_none(self):
        return self == MoeA2ABackend.NONE

    def is_deepep(self):
        return self == MoeA2ABackend.DEEPEP

    def is_nixl(self):
        return self == MoeA2ABackend.NIXL

    def is_planned(self):
        return self == MoeA2ABackend.PLANNED


def should_use_flashinfer_cutlass_moe_fp4_allgather():
    return get_moe_a2a_backend().is_none() and is_dp_attention_enabled() and FP4


def leaves_all_reduce():
    return not get_moe_a2a_backend().is_none() or should_use_flashinfer_cutlass_moe_fp4_allgather()


def one_rank_adds_all_reduce():
    return get_parallel().tp_rank == 0
"""

COMMUNICATOR = """
class ScatterMode:
    SCATTERED = auto()
    FULL = auto()


class LayerScatterModes:
    @classmethod
    def init_new(cls, **kwargs):
        return cls(mlp_mode=cls._compute_mlp_mode(kwargs))

    @classmethod
    def _compute_mlp_mode(cls, context):
        if context.is_layer_sparse:
            return (
                ScatterMode.SCATTERED
                if not get_moe_a2a_backend().is_none()
                or should_use_flashinfer_cutlass_moe_fp4_allgather()
                else ScatterMode.FULL
            )
        return ScatterMode.SCATTERED if enable_moe_dense_fully_dp() else ScatterMode.FULL


class LayerCommunicator:
    def __init__(self, layer_scatter_modes, norm):
        self.layer_scatter_modes = layer_scatter_modes
"""

LINEAR = """
class RowParallelLinear:
    def __init__(self, n_in, n_out, reduce_results=True, tp_size=None):
        self.reduce_results = reduce_results

    def forward(self, x, skip_all_reduce=False):
        return x, None


class ReplicatedLinear:
    def forward(self, x):
        return x, None
"""

MODEL = """
from sglang.srt.layers.communicator import LayerCommunicator, LayerScatterModes
from sglang.srt.layers.linear import ReplicatedLinear
from sglang.srt.layers.moe.topk import TopK
from sglang.srt.layers.moe.utils import (
    leaves_all_reduce,
    one_rank_adds_all_reduce,
    should_use_flashinfer_cutlass_moe_fp4_allgather,
)
from sglang.srt.layers.moe.identity import identity_part
from elsewhere import kernel


class Mlp:
    def __init__(self, config, reduce_results=True, tp_size=None):
        self.down = RowParallelLinear(
            config.n, config.h, reduce_results=reduce_results, tp_size=tp_size
        )

    def forward(self, x):
        x, _ = self.down(x)
        return x


class Block:
    def __init__(self, config):
        self.tp_size = get_tensor_model_parallel_world_size()
        self.router = ReplicatedLinear(config.h, config.n)
        self.topk = TopK(config.top_k)
        self.experts = FusedMoE(num_experts=config.n)
        alone = (
            get_moe_a2a_backend().is_deepep()
            or get_moe_a2a_backend().is_nixl()
            or should_use_flashinfer_cutlass_moe_fp4_allgather()
        )
        self.beside = Mlp(
            config, reduce_results=False, **(dict(tp_size=1) if alone else {})
        )

    def forward(self, x):
        logits, _ = self.router(x)
        weights, ids = self.topk(x, logits)
        out = self.experts(x, ids)
        out = out + self.beside(x)
        if self.tp_size > 1 and not leaves_all_reduce():
            out = tensor_model_parallel_all_reduce(out)
        out = out + identity_part(x, weights, config.kind)
        return out


class Layer:
    def __init__(self, config, layer_id):
        sparse = layer_id >= config.first_dense
        dense_size = 1 if enable_moe_dense_fully_dp() else None
        if sparse:
            self.mlp = Block(config)
        else:
            self.mlp = Mlp(config, tp_size=dense_size)
        self.norm = RMSNorm(config.h)
        self.comm = LayerCommunicator(
            LayerScatterModes.init_new(is_layer_sparse=sparse, attn_tp_size=1), self.norm
        )

    def forward(self, positions, hidden_states, batch, residual):
        hidden_states, residual = self.comm.prepare_mlp(hidden_states, residual, batch)
        hidden_states = self.mlp(hidden_states)
        return self.comm.postprocess_layer(hidden_states, residual, batch)
"""

DISPATCHER = """
def dispatcher_of(config):
    a2a_backend = get_moe_a2a_backend()
    if a2a_backend.is_deepep() or a2a_backend.is_nixl():
        return Dispatcher(config)
    raise NotImplementedError(a2a_backend)
"""

LIBRARY = {
    "layers/linear.py": LINEAR,
    "layers/moe/utils.py": UTILS,
    "layers/moe/token_dispatcher/choice.py": DISPATCHER,
    "layers/moe/topk.py": "class TopK:\n    pass\n",
    "layers/moe/identity.py": "def identity_part(x, weights, kind):\n    return x * weights\n",
    "layers/communicator.py": COMMUNICATOR,
}
REDUCTION = """        if self.tp_size > 1 and not leaves_all_reduce():
            out = tensor_model_parallel_all_reduce(out)
"""
FORGETS_FI = (
    "            or should_use_flashinfer_cutlass_moe_fp4_allgather()\n        )",
    "        )",
)
# the same layer behind a stage boundary instead of a communicator
STAGES = (
    (
        """        self.comm = LayerCommunicator(
            LayerScatterModes.init_new(is_layer_sparse=sparse, attn_tp_size=1), self.norm
        )
""",
        """        self.attn_stage, self.ffn_stage = append_stages(
            (declare_attn(group="attn_tp"), self.norm), (declare_ffn(sparse=sparse), self.norm)
        )
""",
    ),
    ("hidden_states, residual = self.comm.prepare_mlp(hidden_states, residual, batch)", "pass"),
    (
        "self.comm.postprocess_layer(hidden_states, residual, batch)",
        "self.ffn_stage.finish(hidden_states, batch)",
    ),
    (
        "def __init__(self, config, reduce_results=True,",
        "def __init__(self, config, reduce_results=False,",
    ),
)
IDENTITY = "        out = out + identity_part(x, weights, config.kind)\n"


class Judged:
    """A scan's findings, as rules with their rows, and what it left open."""

    def __init__(self, result: ScanResult) -> None:
        assert result.unread == ()
        self.findings, self.sites = result.findings, result.sites
        self.rules = [(finding.rule, finding.row) for finding in result.findings]
        self.untold, self.refused = result.untold, result.refused


@pytest.fixture
def judged(scanned: Callable[..., ScanResult]) -> Callable[..., Judged]:
    """Scan the sound model with pieces replaced, each of which must be there."""

    def make(
        *changes: tuple[str, str],
        library: Mapping[str, str] | None = None,
        renamed: tuple[str, ...] = (),
    ) -> Judged:
        model = MODEL
        for old, new in changes:
            assert old in model, f"nothing to change: {old!r}"
            model = model.replace(old, new)
        for index, name in enumerate(renamed):
            model = re.sub(rf"\b{name}\b", f"N{index}x", model)
        return Judged(scanned(model, library={**LIBRARY, **(library or {})}))

    return make


@pytest.fixture
def change() -> SimpleNamespace:
    """Changes of the sound model that several tests make."""

    def before_the_sum(addition: str = IDENTITY) -> tuple[str, str]:
        return REDUCTION + IDENTITY, addition + REDUCTION

    return SimpleNamespace(
        before_the_sum=before_the_sum,
        after_the_sum=(
            "        out = out + self.beside(x)\n" + REDUCTION,
            REDUCTION + "        out = out + self.beside(x)\n",
        ),
        never_summed=(REDUCTION, ""),
        added_once=(IDENTITY, "        if one_rank_adds_all_reduce():\n    " + IDENTITY),
        forgets_fi=FORGETS_FI,
        library=LIBRARY,
        stages=STAGES,
        ignores_the_flag=("Mlp(config, tp_size=dense_size)", "Mlp(config)"),
        names=(
            "Mlp",
            "Block",
            "Layer",
            "beside",
            "alone",
            "dense_size",
            "out",
            "logits",
            "weights",
            "ids",
        ),
    )
