"""What is added into a partial sum: each rule is broken on purpose in a sample that is sound."""

import re
from collections.abc import Callable

import pytest

from verify.scan.scan import ScanResult

Scan = Callable[..., ScanResult]

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

LIBRARY = {
    "layers/linear.py": LINEAR,
    "layers/moe/utils.py": UTILS,
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
IDENTITY = "        out = out + identity_part(x, weights, config.kind)\n"


@pytest.fixture
def judged(scanned: Scan) -> Callable[..., ScanResult]:
    """Scan the sound model with pieces replaced, each of which must be there."""

    def make(*changes: tuple[str, str], library: dict[str, str] | None = None) -> ScanResult:
        model = MODEL
        for old, new in changes:
            assert old in model, f"nothing to change: {old!r}"
            model = model.replace(old, new)
        return scanned(model, library={**LIBRARY, **(library or {})})

    return make


def found(result: ScanResult) -> list[tuple[str, str | None]]:
    """The findings' rules and rows, and that everything was read."""
    assert result.unread == ()
    return [(finding.rule, finding.row) for finding in result.findings]


def before_the_sum(addition: str) -> tuple[str, str]:
    """The identity part added before the reduction, as `addition` does it."""
    return REDUCTION + IDENTITY, addition + REDUCTION


def test_sound_model_is_clean(judged: Scan) -> None:
    result = judged()
    assert found(result) == []
    assert result.advice == ()
    assert result.untold == ()


def test_complete_value_added_before_the_sum_counts_once_a_rank(judged: Scan) -> None:
    result = judged(before_the_sum(IDENTITY))
    assert found(result) == [("replicated-addend", "0000")]
    (finding,) = result.findings
    assert (finding.cls, finding.method) == ("Block", "forward")
    assert "it counts once for every rank" in finding.message
    assert finding.fix is not None


@pytest.mark.parametrize(
    "addition",
    [
        "        out += identity_part(x, weights, config.kind)\n",
        "        out.add_(identity_part(x, weights, config.kind).to(out.device))\n",
        "        out = torch.add(out, identity_part(x, weights, config.kind))\n",
        "        part = identity_part(x, weights, config.kind) * config.scale\n"
        "        out = part.view(-1) + out * config.scale\n",
        "        if x.shape[0] > 0:\n            out = out + kernel(x, weights)\n",
        "        out = out + x\n",
    ],
)
def test_however_it_is_added(judged: Scan, addition: str) -> None:
    assert found(judged(before_the_sum(addition))) == [("replicated-addend", "0000")]


@pytest.mark.parametrize(
    "addition",
    [
        "        if get_parallel().tp_rank == 0:\n            out = out + x\n",
        "        if one_rank_adds_all_reduce():\n            out = out + x\n",
        "        if self.tp_size == 1 or get_parallel().tp_rank == 0:\n            out = out + x\n",
        "        out = out + x / self.tp_size\n",
        "        out = out * torch.sigmoid(x)\n",
        "        out = out + torch.zeros_like(x)\n",
        "        out = out + 1e-6\n",
    ],
    ids=["rank 0", "a helper", "one rank or rank 0", "divided", "gate", "zeros", "constant"],
)
def test_what_counts_once_or_is_no_addend(judged: Scan, addition: str) -> None:
    assert found(judged(before_the_sum(addition))) == []


@pytest.mark.parametrize(
    "addition",
    [
        "        out = out + kernel(x, self.weight)\n",
        "        out = out + self.other(x)\n",
        "        out = out + rank_slice(x)\n",
    ],
    ids=["with weights", "an unknown module", "an unknown function"],
)
def test_unknown_addend_is_counted_and_not_judged(judged: Scan, addition: str) -> None:
    result = judged(before_the_sum(addition))
    assert found(result) == []
    assert len(result.untold) == 1


def test_function_that_asks_for_its_rank_is_not_taken_for_replicated(judged: Scan) -> None:
    slices = "def identity_part(x, weights, kind):\n    return x if get_rank() == 0 else x * 0\n"
    library = {"layers/moe/identity.py": slices}
    result = judged(before_the_sum(IDENTITY), library=library)
    assert found(result) == []
    assert len(result.untold) == 1


def test_replicated_shared_expert_in_a_later_sum(judged: Scan) -> None:
    result = judged(("dict(tp_size=1) if alone else {}", "dict(tp_size=1)"))
    assert found(result) == [("replicated-addend", "0000")]


def test_shared_expert_that_forgets_fi_is_lost(judged: Scan) -> None:
    result = judged(FORGETS_FI)
    assert found(result) == [("lost-addend", "0001")]
    (finding,) = result.findings
    assert (finding.cls, finding.method) == ("Block", "__init__")


def test_model_whose_attention_knows_no_group_of_its_own_is_given_advice(judged: Scan) -> None:
    result = judged(FORGETS_FI, (", attn_tp_size=1)", ")"))
    assert found(result) == []
    assert [(advice.rule, advice.row) for advice in result.advice] == [("lost-addend", "0001")]


def test_shared_expert_that_forgets_a_backend_is_lost_with_it(judged: Scan) -> None:
    forgets = ("            or get_moe_a2a_backend().is_nixl()\n", "")
    asks_elsewhere = {"models/other.py": "def f():\n    return get_moe_a2a_backend().is_nixl()\n"}
    result = judged(forgets, library=asks_elsewhere)
    assert found(result) == [("lost-addend", "0000")]
    assert "all-to-all backend nixl," in result.findings[0].message


def test_backend_that_no_model_asks_about_is_not_counted(judged: Scan) -> None:
    assert found(judged(("            or get_moe_a2a_backend().is_nixl()\n", ""))) == []


def test_model_that_knows_no_backend_is_given_advice(judged: Scan) -> None:
    model = (
        "            get_moe_a2a_backend().is_deepep()\n"
        "            or get_moe_a2a_backend().is_nixl()\n            or should",
        "            should",
    )
    asks_elsewhere = {"models/other.py": "def f():\n    return get_moe_a2a_backend().is_nixl()\n"}
    result = judged(model, library=asks_elsewhere)
    assert found(result) == []
    assert [(advice.rule, advice.row) for advice in result.advice] == [("lost-addend", "0000")]


def test_shared_expert_that_sums_itself_on_local_rows_mixes_tokens(judged: Scan) -> None:
    after = (
        "        out = out + self.beside(x)\n" + REDUCTION,
        REDUCTION + "        out = out + self.beside(x)\n",
    )
    own = ("reduce_results=False, **", "reduce_results=True, **")
    assert found(judged(after, own)) == []
    assert found(judged(after, own, FORGETS_FI)) == [("mixed-addend", "0001")]


def test_dense_mlp_that_ignores_the_flag_is_still_sharded(judged: Scan) -> None:
    result = judged(("Mlp(config, tp_size=dense_size)", "Mlp(config)"))
    assert found(result) == [("sharded-dense", "0000")]
    assert result.findings[0].kind == "mixed"
    silent = judged(("Mlp(config, tp_size=dense_size)", "Mlp(config, reduce_results=False)"))
    assert ("sharded-dense", "0000") in found(silent)
    assert {finding.kind for finding in silent.findings if finding.rule == "sharded-dense"} == {
        "lost"
    }


def test_layer_declared_dense_runs_on_gathered_rows(judged: Scan) -> None:
    dense = ("is_layer_sparse=sparse", "is_layer_sparse=False")
    assert found(judged(dense, FORGETS_FI)) == []


def test_modes_of_the_models_own_are_not_guessed(judged: Scan) -> None:
    own = ("LayerScatterModes.init_new(is_layer_sparse=sparse, attn_tp_size=1)", "modes(sparse)")
    assert found(judged(own, FORGETS_FI)) == []


BY_FUNCTION = """
def _ffn_on_rank_rows(sparse, dense_tp_size):
    if sparse:
        return leaves_all_reduce()
    if dense_tp_size is None:
        return enable_moe_dense_fully_dp()
    return dense_tp_size == 1
"""
INLINE = """
def resolve(variant, *, sparse, dense_tp_size=None):
    on_local = (
        leaves_all_reduce()
        if sparse
        else (enable_moe_dense_fully_dp() if dense_tp_size is None else dense_tp_size == 1)
    )
    return on_local
"""
IMPORT = "from sglang.srt.layers.moe.utils import leaves_all_reduce\n"
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
    (REDUCTION, ""),
    (
        "def __init__(self, config, reduce_results=True,",
        "def __init__(self, config, reduce_results=False,",
    ),
)


@pytest.mark.parametrize("rows", [BY_FUNCTION, INLINE], ids=["a function", "written inline"])
def test_stage_boundary_says_where_rows_are_local(judged: Scan, rows: str) -> None:
    library = {"layers/layer_boundary/factories.py": IMPORT + rows}
    # the boundary sums the block's output up: what every rank holds may not be in it
    once = (IDENTITY, "        if one_rank_adds_all_reduce():\n    " + IDENTITY)
    assert found(judged(*STAGES, once, library=library)) == []
    assert found(judged(*STAGES, library=library)) == [("replicated-addend", "0000")]
    assert found(judged(*STAGES, once, FORGETS_FI, library=library)) == [("lost-addend", "0001")]
    sharded = ("Mlp(config, tp_size=dense_size)", "Mlp(config)")
    result = judged(*STAGES, once, sharded, library=library)
    assert found(result) == [("sharded-dense", "0000")]
    assert result.findings[0].kind == "lost"
    own_size = (
        "declare_ffn(sparse=sparse)",
        "declare_ffn(sparse=sparse, dense_tp_size=size_of(config))",
    )
    assert found(judged(*STAGES, once, sharded, own_size, library=library)) == []


NAMES = (
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
)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (before_the_sum(IDENTITY), ["replicated-addend"]),
        (FORGETS_FI, ["lost-addend"]),
        (("Mlp(config, tp_size=dense_size)", "Mlp(config)"), ["sharded-dense"]),
    ],
)
def test_names_do_not_matter(scanned: Scan, change: tuple[str, str], expected: list[str]) -> None:
    model = MODEL.replace(*change)
    for index, name in enumerate(NAMES):
        model = re.sub(rf"\b{name}\b", f"N{index}x", model)
    result = scanned(model, library=LIBRARY)
    assert [finding.rule for finding in result.findings] == expected
