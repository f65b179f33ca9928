"""Where a source's layers leave their sum to the next norm: its own condition, followed.

`should_fuse_mlp_allreduce_with_next_layer` asks the server, the layer and the batch. What a
deployment answers is asked of it, the platform follows from the kernel, and all else (how many
tokens, whether a kernel is installed) is free: a layer fuses where it can be made to.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from verify.engines.sglang.constraints import CUDA, when
from verify.engines.sglang.refusals import ATTENTION_DP, INPUT_SCATTERED
from verify.engines.sglang.vocabulary import (
    A2A_NONE,
    COMMUNICATOR,
    COMMUNICATOR_FILE,
    COMMUNICATOR_FLAGS,
    IS_LAST,
)
from verify.interpreter.index import Class, Index
from verify.interpreter.state import started
from verify.interpreter.values import Instance, Routine
from verify.logic.diagrams import FALSE, Cond, Logic
from verify.parallel.deployment import Deployment
from verify.parallel.scene import Mode

AITER = "_use_aiter"
FLASHINFER = re.compile(rf"{CUDA.pattern}|^_is_flashinfer_available$")
FUSES = next(name for name, flag in COMMUNICATOR_FLAGS.items() if flag == "AF")


class _Layer(NamedTuple):
    deployment: Deployment
    mode: Mode
    last: bool


# input that stays scattered is no deployment here: `parallel.deployment` says what is
ASKED: Mapping[str, Callable[[_Layer], bool]] = {
    ATTENTION_DP: lambda layer: layer.deployment.config.enable_dp_attention,
    "tp_size > 1": lambda layer: layer.deployment.config.tp_size > 1,
    f"{COMMUNICATOR}._context.tp_size > 1": lambda layer: layer.deployment.config.tp_size > 1,
    "tp_size == 6": lambda layer: layer.deployment.config.tp_size == 6,
    "moe_ep_size > 1": lambda layer: layer.deployment.config.ep_size > 1,
    "moe_tp_size > 1": lambda layer: layer.deployment.config.moe_tp_size > 1,
    **{
        f"{owner}.attn_cp_size > 1": lambda layer: layer.deployment.config.attn_cp_size > 1
        for owner in ("get_global_server_args()", "get_server_args()", "get_parallel()")
    },
    A2A_NONE: lambda layer: layer.deployment.config.moe_a2a_backend == "none",
    "is_enable_moe_cp_allgather()": lambda layer: layer.deployment.shares_tokens_across_cp,
    f"{COMMUNICATOR}.layer_scatter_modes.mlp_mode == MOE_FULL": (
        lambda layer: layer.mode == "moe_full"
    ),
    f"{COMMUNICATOR}.layer_scatter_modes.mlp_mode == SCATTERED": (
        lambda layer: layer.mode == "scattered"
    ),
    f"{COMMUNICATOR}.{IS_LAST}": lambda layer: layer.last,
    INPUT_SCATTERED: lambda _: False,
}


class _Table(NamedTuple):
    """The rows of `asked`, the first most significant, in which a layer fuses."""

    asked: tuple[str, ...]
    rows: int

    def holds(self, layer: _Layer) -> bool:
        row = 0
        for name in self.asked:
            row = row << 1 | ASKED[name](layer)
        return bool(self.rows >> row & 1)


@dataclass(frozen=True, kw_only=True)
class Fuses:
    """Whether a layer fuses, by the kernel that its server has."""

    aiter: _Table
    flashinfer: _Table

    def __call__(self, deployment: Deployment, mode: Mode, *, last: bool) -> bool:
        """`mode` are the tokens that its MLP is given, `last` whether it was told it is that."""
        on_rocm = deployment.fusion.startswith("aiter")
        # kernels of the FP4 dispatcher are CUDA's
        if deployment.fusion == "off" or (on_rocm and deployment.fp4_allgather):
            return False
        table = self.aiter if on_rocm else self.flashinfer
        return table.holds(_Layer(deployment, mode, last))


def read_fuses(index: Index) -> Fuses | None:
    """The source's own condition; None where it cannot be followed, never where it has none."""
    module = index.module(COMMUNICATOR_FILE)
    cls = module.lookup(COMMUNICATOR) if module else None
    method = cls.method(FUSES) if isinstance(cls, Class) else None
    state = started(index, theory=True)
    fuses: Cond | None = FALSE
    if isinstance(cls, Class) and method is not None:
        fuses = when(state, Routine(method, Instance(cls)))
    if fuses is None:
        return None
    logic = state.logic
    on_cuda = logic.assume(fuses, AITER, value=False)
    atoms = logic.support(fuses)
    neither = [(name, False) for name in atoms if FLASHINFER.search(name)]
    on_rocm = logic.fix(fuses, [(AITER, True), *neither])
    return Fuses(aiter=_table(logic, on_rocm), flashinfer=_table(logic, on_cuda))


def _table(logic: Logic, fuses: Cond) -> _Table:
    asked = tuple(name for name in logic.support(fuses) if name in ASKED)
    return _Table(asked, logic.table(logic.shadow(fuses, frozenset(asked)), asked))
