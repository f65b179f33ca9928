"""Where an MLP runs on this rank's own rows, so that what it leaves is nobody's to sum up.

Read from the source: the stage boundary says so in `_ffn_on_rank_rows`, the layer communicator in
`_compute_mlp_mode`, which returns SCATTERED there.
"""

import ast
import re

from verify.engines.sglang.vocabulary import COMMUNICATOR_FILE, FACTORIES_FILE
from verify.engines.traits import LocalRows
from verify.interpreter.index import Class, Function, Module
from verify.interpreter.machine import Machine
from verify.interpreter.state import Frame
from verify.interpreter.values import (
    NONE,
    Const,
    Instance,
    Mapped,
    Routine,
    Truth,
    Value,
    alternatives,
)
from verify.logic.diagrams import FALSE, TRUE, Cond

ON_RANK_ROWS = "_ffn_on_rank_rows"
_INLINE = re.compile(r"\bif sparse\s+else\b(?s:.*)\bdense_tp_size\b")
SCATTER_MODES = "LayerScatterModes"
MLP_MODE = "_compute_mlp_mode"
MODES = "ScatterMode"
SCATTERED = Const("SCATTERED")
_MEMBER = re.compile(r"^    ([A-Z]\w*) = ", re.MULTILINE)


def boundary_rows(machine: Machine, sparse: Value | None, dense_size: Value) -> LocalRows:
    """What the stage boundary makes of the stage's declaration."""
    # a size computed by the model may be the one its layer is built with: nothing can be told
    told = all(isinstance(size, Const) for _, size in alternatives(dense_size))
    return _declared(
        machine,
        sparse,
        LocalRows(
            sparse=_boundary(machine, Truth(TRUE), NONE),
            dense=_boundary(machine, Truth(FALSE), dense_size) if told else None,
        ),
    )


def communicator_rows(machine: Machine, sparse: Value | None) -> LocalRows:
    """What the layer communicator makes of the kind of layer it was told."""
    return _declared(
        machine,
        sparse,
        LocalRows(
            sparse=_communicator(machine, Truth(TRUE)), dense=_communicator(machine, Truth(FALSE))
        ),
    )


def _declared(machine: Machine, sparse: Value | None, rows: LocalRows) -> LocalRows:
    """Each kind of rows where the layer was declared to be of that kind."""
    if sparse is None:
        return rows
    logic, declared = machine.logic, machine.truth(sparse)
    dense = logic.negation(declared)
    return LocalRows(
        sparse=None if rows.sparse is None else logic.both(declared, rows.sparse),
        dense=None if rows.dense is None else logic.both(dense, rows.dense),
    )


def _boundary(machine: Machine, sparse: Value, dense_size: Value) -> Cond | None:
    module = machine.state.index.module(FACTORIES_FILE)
    if module is None:
        return None
    function = module.resolve(ON_RANK_ROWS)
    if isinstance(function, Function):
        pairs = _returns(machine, function, (sparse, dense_size), [])
        return machine.logic.any_of(*(machine.logic.both(c, machine.truth(v)) for c, v in pairs))
    return _written_inline(machine, module, sparse, dense_size)


def _written_inline(
    machine: Machine, module: Module, sparse: Value, dense_size: Value
) -> Cond | None:
    """The release before has no function for it: `... if sparse else (... dense_tp_size ...)`."""
    for name, piece in module.pieces.items():
        function = module.lookup(name) if _INLINE.search(piece.text) else None
        if not isinstance(function, Function):
            continue
        for node in ast.walk(function.node):
            if isinstance(node, ast.IfExp) and _INLINE.search(ast.unparse(node)):
                frame = Frame(module, name, None, TRUE)
                frame.env.update(sparse=sparse, dense_tp_size=dense_size)
                machine.state.enter(frame)
                try:
                    return machine.truth(machine.evaluate(node))
                finally:
                    machine.state.leave()
    return None


def communicator_modes(machine: Machine, sparse: Value) -> dict[str, Cond]:
    """When the layer communicator gives a kind of layer each of its modes, by their names."""
    module = machine.state.index.module(COMMUNICATOR_FILE)
    modes = module.lookup(SCATTER_MODES) if module else None
    method = modes.method(MLP_MODE) if isinstance(modes, Class) else None
    named = module.lookup(MODES) if module else None
    if method is None or not isinstance(modes, Class):
        return {}
    names = _MEMBER.findall(named.text) if isinstance(named, Class) else [str(SCATTERED.value)]
    context = Instance(modes, {"is_layer_sparse": sparse})
    pairs = _returns(machine, method, (Routine(modes), context), names)
    found = dict.fromkeys(names, FALSE)
    for cond, value in pairs:
        for where, mode in alternatives(value):
            if isinstance(mode, Const) and mode.value in found:
                name = str(mode.value)
                found[name] = machine.logic.either(found[name], machine.logic.both(cond, where))
    return found


def _communicator(machine: Machine, sparse: Value) -> Cond | None:
    return communicator_modes(machine, sparse).get(str(SCATTERED.value))


def _returns(
    machine: Machine, function: Function, positional: tuple[Value, ...], modes: list[str]
) -> list[tuple[Cond, Value]]:
    """What a function of the source returns, case by case."""
    frame = Frame(function.module, function.name, function.owner, TRUE)
    machine.state.enter(frame)
    try:
        machine.bind(function, positional, {})
        frame.env[MODES] = Mapped({name: Const(name) for name in modes})
        body = function.node.body
        machine.run_body(body if isinstance(body, list) else [])
    finally:
        machine.state.leave()
    return [(cond, value) for cond, value in frame.returns if cond != FALSE]
