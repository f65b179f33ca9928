"""Where an MLP runs on this rank's own rows, so that what it leaves is nobody's to sum up.

Read from the source: the stage boundary says so in `_ffn_on_rank_rows`, the layer communicator in
`_compute_mlp_mode`, which returns SCATTERED there.
"""

from dataclasses import dataclass

from verify.scan.index import Class, Function
from verify.scan.logic import FALSE, TRUE, Cond
from verify.scan.machine import Machine
from verify.scan.state import Frame
from verify.scan.values import (
    NONE,
    Const,
    Instance,
    Mapped,
    Routine,
    Truth,
    Value,
    alternatives,
)

FACTORIES = "sglang/srt/layers/layer_boundary/factories.py"
ON_RANK_ROWS = "_ffn_on_rank_rows"
COMMUNICATOR_FILE = "sglang/srt/layers/communicator.py"
SCATTER_MODES = "LayerScatterModes"
MLP_MODE = "_compute_mlp_mode"
MODES = "ScatterMode"
SCATTERED = Const("SCATTERED")


@dataclass(frozen=True, kw_only=True)
class LocalRows:
    """When a sparse and a dense FFN run on rank-local rows; None where the source does not say."""

    sparse: Cond | None
    dense: Cond | None


def local_rows(machine: Machine, sink_kind: str) -> LocalRows:
    """Ask the consumer of that kind, in words of the machine's own atoms."""
    ask = _boundary if sink_kind == "boundary" else _communicator
    return LocalRows(sparse=ask(machine, Truth(TRUE)), dense=ask(machine, Truth(FALSE)))


def _boundary(machine: Machine, sparse: Value) -> Cond | None:
    module = machine.state.index.module(FACTORIES)
    function = module.resolve(ON_RANK_ROWS) if module else None
    if not isinstance(function, Function):
        return None
    pairs = _returns(machine, function, (sparse, NONE))
    return machine.logic.any_of(*(machine.logic.both(c, machine.truth(v)) for c, v in pairs))


def _communicator(machine: Machine, sparse: Value) -> Cond | None:
    module = machine.state.index.module(COMMUNICATOR_FILE)
    modes = module.lookup(SCATTER_MODES) if module else None
    method = modes.method(MLP_MODE) if isinstance(modes, Class) else None
    if method is None or not isinstance(modes, Class):
        return None
    context = Instance(modes, {"is_layer_sparse": sparse})
    pairs = _returns(machine, method, (Routine(modes), context))
    return machine.logic.any_of(
        *(
            machine.logic.both(cond, where)
            for cond, value in pairs
            for where, mode in alternatives(value)
            if mode == SCATTERED
        )
    )


def _returns(
    machine: Machine, function: Function, positional: tuple[Value, ...]
) -> list[tuple[Cond, Value]]:
    """What a function of the source returns, case by case."""
    frame = Frame(function.module, function.name, function.owner, TRUE)
    machine.state.frames.append(frame)
    try:
        machine.bind(function, positional, {})
        # one mode told apart from all others, which need no telling
        frame.env[MODES] = Mapped({str(SCATTERED.value): SCATTERED})
        body = function.node.body
        machine.run_body(body if isinstance(body, list) else [])
    finally:
        machine.state.frames.pop()
    return [(cond, value) for cond, value in frame.returns if cond != FALSE]
