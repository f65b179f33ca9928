"""What a source's communicator answers a layer: its own conditions, followed.

Whether a layer leaves its sum to the next norm, and whether its block may leave it to a
reduce-scatter, are questions to the server, the layer and the batch. What a deployment answers is
asked of it, the platform follows from the kernel, and all else (how many tokens, whether a kernel
is installed) is free: a layer does what it can be made to do.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from helper import MoeConfig
from verify.engines.ledger import SummedGroup
from verify.engines.sglang.constraints import (
    CONTEXT_PARALLEL,
    CUDA,
    EXIT_FILE,
    published_flags,
    when,
)
from verify.engines.sglang.refusals import ATTENTION_DP, INPUT_SCATTERED
from verify.engines.sglang.vocabulary import (
    A2A_NONE,
    ALLOW,
    BOUNDARY,
    BOUNDARY_ANSWERS,
    COMMUNICATOR,
    COMMUNICATOR_FILE,
    COMMUNICATOR_FLAGS,
    GATHERS_CONTEXTS,
    IS_LAST,
    SCATTERS,
)
from verify.engines.traits import Coverage
from verify.interpreter.index import Class, Definition, Index
from verify.interpreter.state import State, started
from verify.interpreter.values import Instance, Routine
from verify.logic.diagrams import FALSE, Cond, Logic
from verify.parallel.deployment import Deployment
from verify.parallel.row import scatters
from verify.parallel.scene import Mode

MODE = f"{COMMUNICATOR}.layer_scatter_modes.mlp_mode"
AITER = "_use_aiter"
FLASHINFER = re.compile(rf"{CUDA.pattern}|^_is_flashinfer_available$")
# contexts with communicators of their own, which are not read, and inputs that stay scattered,
# which are no deployment here
ELSEWHERE = re.compile(
    rf"{CONTEXT_PARALLEL.pattern}|_cp_|{re.escape(INPUT_SCATTERED)}|enable_lora|SHARED_EXPERT_TP1"
    r"|output_move_completes_sum"
)
NO_STEP = "dp_step is None"


class _Layer(NamedTuple):
    deployment: Deployment
    mode: Mode
    last: bool = False
    allowed: bool = False
    by_size: bool = False
    scattered: bool = False


ASKED: Mapping[str, Callable[[_Layer], bool]] = {
    ATTENTION_DP: lambda layer: layer.deployment.config.enable_dp_attention,
    "tp_size > 1": lambda layer: layer.deployment.config.tp_size > 1,
    f"{COMMUNICATOR}._context.tp_size > 1": lambda layer: layer.deployment.config.tp_size > 1,
    "moe_dp_size > 1": lambda layer: layer.deployment.config.moe_dp_size > 1,
    "tp_size == 6": lambda layer: layer.deployment.config.tp_size == 6,
    "moe_ep_size > 1": lambda layer: layer.deployment.config.ep_size > 1,
    "moe_tp_size > 1": lambda layer: layer.deployment.config.moe_tp_size > 1,
    **{
        f"{owner}.attn_cp_size > 1": lambda layer: layer.deployment.config.attn_cp_size > 1
        for owner in ("get_global_server_args()", "get_server_args()", "get_parallel()")
    },
    A2A_NONE: lambda layer: layer.deployment.config.moe_a2a_backend == "none",
    f"{GATHERS_CONTEXTS}()": lambda layer: layer.deployment.shares_tokens_across_cp,
    f"{MODE} == MOE_FULL": lambda layer: layer.mode == "moe_full",
    f"{MODE} == SCATTERED": lambda layer: layer.mode == "scattered",
    f"{COMMUNICATOR}.{IS_LAST}": lambda layer: layer.last,
    f"{COMMUNICATOR}.{ALLOW}": lambda layer: layer.allowed,
    SCATTERS: lambda layer: scatters(layer.deployment, layer.mode),
    "forward_batch.dp_padding_mode.is_max_len()": (
        lambda layer: layer.deployment.padding == "max_len"
    ),
    "DP": lambda layer: layer.by_size,
    "FI": lambda layer: layer.deployment.fp4_allgather,
    "mlp_reduce_scatter": lambda layer: layer.scattered,
    f"{BOUNDARY}.plan.terminal": lambda layer: layer.last,
    "steps.output.group is None": lambda layer: layer.mode == "scattered",
    "steps.returns_over_dp": lambda layer: scatters(layer.deployment, layer.mode),
    "steps.output.leaves_for_reduce_scatter": lambda layer: layer.allowed,
    "steps.output.leaves_for_reduce_scatterv": lambda layer: layer.allowed,
    "get_parallel().moe_ep_group is get_parallel().tp_group": (
        lambda layer: layer.deployment.config.ep_size == layer.deployment.config.tp_size
    ),
    "get_parallel().moe_tp_group is get_parallel().tp_group": (
        lambda layer: layer.deployment.config.moe_tp_size == layer.deployment.config.tp_size
    ),
}


class _Table(NamedTuple):
    """The rows of `asked`, the first most significant, in which the answer can be yes."""

    asked: tuple[str, ...]
    rows: int

    def holds(self, layer: _Layer) -> bool:
        row = 0
        for name in self.asked:
            row = row << 1 | ASKED[name](layer)
        return bool(self.rows >> row & 1)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The tables; whether a layer fuses, by the kernel that its server has."""

    aiter: _Table
    flashinfer: _Table
    scattering: _Table

    def fuses(
        self, deployment: Deployment, mode: Mode, *, last: bool, scattered: bool = False
    ) -> bool:
        """`mode` are the tokens that the MLP is given, `last` whether it was told it is that."""
        on_rocm = deployment.fusion.startswith("aiter")
        # kernels of the FP4 dispatcher are CUDA's
        if deployment.fusion == "off" or (on_rocm and deployment.fp4_allgather):
            return False
        table = self.aiter if on_rocm else self.flashinfer
        return table.holds(_Layer(deployment, mode, last=last))

    def scatters(self, deployment: Deployment, mode: Mode, *, allowed: bool, by_size: bool) -> bool:
        """`allowed`: the communicator may; `by_size`: groups are handed their own sizes."""
        return self.scattering.holds(_Layer(deployment, mode, allowed=allowed, by_size=by_size))


class Published(Answers):
    """The tables of a boundary that tells its blocks what to leave, whatever kernel there is."""

    def fuses(
        self, deployment: Deployment, mode: Mode, *, last: bool, scattered: bool = False
    ) -> bool:
        """A sum is left to the next layer with a fused kernel or without."""
        return self.flashinfer.holds(_Layer(deployment, mode, last=last, scattered=scattered))


def _followed(state: State, cls: Definition | None, name: str) -> Cond | None:
    """When a method answers yes; None where it cannot be followed, never where there is none."""
    method = cls.method(name) if isinstance(cls, Class) else None
    if not isinstance(cls, Class) or method is None:
        return FALSE
    yes = when(state, Routine(method, Instance(cls)))
    if yes is None:
        return None
    unasked = [atom for atom in state.logic.support(yes) if atom not in ASKED]
    elsewhere = filter(ELSEWHERE.search, unasked)
    return state.logic.fix(yes, [(atom, atom.endswith(" is None")) for atom in elsewhere])


def _published(state: State) -> Published | None:
    module, logic = state.index.module(EXIT_FILE), state.logic
    cls = module.lookup(BOUNDARY) if module else None
    step, left, moved = (_followed(state, cls, name) for name in BOUNDARY_ANSWERS)
    if step is None or left is None or moved is None:
        return None
    none = logic.assume(left, NO_STEP, value=True)
    left = logic.either(none, logic.both(step, logic.assume(left, NO_STEP, value=False)))
    # a step is a reduce-scatter, which is asked for as well
    fuses = _table(logic, logic.assume(moved, NO_STEP, value=True), [])
    return Published(aiter=fuses, flashinfer=fuses, scattering=_table(logic, left, []))


def read_answers(index: Index) -> Answers | None:
    """The source's own conditions; None where one cannot be followed.

    One that the source does not have is never true.
    """
    state = started(index, theory=True)
    if published_flags(index):
        return _published(state)
    module, logic = index.module(COMMUNICATOR_FILE), state.logic
    cls = module.lookup(COMMUNICATOR) if module else None
    found = dict[str, Cond]()
    for name, flag in COMMUNICATOR_FLAGS.items():
        yes = _followed(state, cls, name)
        if yes is None:
            return None
        found[flag] = yes
    neither = [(name, False) for name in logic.support(found["AF"]) if FLASHINFER.search(name)]
    return Answers(
        aiter=_table(logic, found["AF"], [(AITER, True), *neither]),
        flashinfer=_table(logic, found["AF"], [(AITER, False)]),
        scattering=_table(logic, found["RS"], []),
    )


@dataclass(frozen=True, kw_only=True)
class BoundarySum:
    """Over which group a stage's boundary sums what experts leave, as the source picks it."""

    whole: _Table
    experts: _Table

    def __call__(self, config: MoeConfig) -> SummedGroup:
        """The group in this configuration."""
        layer = _Layer(Deployment(config=config), "full")
        if self.whole.holds(layer):
            return "tp"
        return "ep" if self.experts.holds(layer) else "moe_tp"


def boundary_sum(logic: Logic, picked: Coverage) -> BoundarySum:
    """The choice that was read under `logic`."""
    return BoundarySum(
        whole=_table(logic, picked.whole, []), experts=_table(logic, picked.axes["EP"], [])
    )


def _table(logic: Logic, yes: Cond, given: Iterable[tuple[str, bool]]) -> _Table:
    left = logic.fix(yes, tuple(given))
    asked = tuple(name for name in logic.support(left) if name in ASKED)
    return _Table(asked, logic.table(logic.shadow(left, frozenset(asked)), asked))
