"""What calls into SGLang's own library do to a partial sum: layers, collectives, kernels."""

import ast
import re
from collections.abc import Mapping

from verify.engines.sglang.communicator import HIDDEN_AND_RESIDUAL, boundary
from verify.engines.sglang.vocabulary import (
    A2A_NONE,
    COMMUNICATOR,
    EXPERT_FACTORY,
    EXPERT_LAYERS,
    FLAG_FUNCTIONS,
    FORWARD_CONTEXT,
    FUSED_NORM,
    LAYERS,
    LOCAL_WORK,
    MOVES_ROWS,
    OWN_FORWARD,
    OWN_SUM,
    ROW_LINEAR,
    SCATTER_SUMS,
    STAGE_DECLARATIONS,
    STAGE_FACTORIES,
    UTILS_FILE,
    WHOLE,
)
from verify.interpreter.blocks import Blocks
from verify.interpreter.calls import Calls
from verify.interpreter.index import Class, Function
from verify.interpreter.library import Arguments, BlockCall, Build, Call, Keywords
from verify.interpreter.named import Named
from verify.interpreter.state import Frame
from verify.interpreter.values import (
    NONE,
    Axis,
    Choice,
    Const,
    Items,
    Primitive,
    Routine,
    Text,
    Truth,
    Value,
    alternatives,
)
from verify.logic.diagrams import FALSE, TRUE, Cond

BACKEND_ASKED = A2A_NONE.partition("(")[0]
MOVES = "moves tokens"
MOE_AXES: tuple[Axis, ...] = ("EP", "MOE_TP")
LINEAR_FILE = "sglang/srt/layers/linear.py"
PUBLISHED_SKIP = "should_skip_mlp_all_reduce"


# constructors ----------------------------------------------------------------------------------


def _communicator(
    machine: Calls, cls: Class, positional: Arguments, keywords: Keywords
) -> Primitive:
    machine.state.communicators += 1
    return Primitive("communicator", machine.settings(cls, positional, keywords))


def _row_linear(machine: Calls, cls: Class, positional: Arguments, keywords: Keywords) -> Primitive:
    return Primitive("row", machine.settings(cls, positional, keywords))


def _expert_layer(
    machine: Calls, cls: Class, positional: Arguments, keywords: Keywords
) -> Primitive:
    """An expert layer that runs code of its own says so: what that sums is not known.

    One of the library's that asks for no all-to-all backend moves no tokens with any.
    """
    forward = cls.method("forward")
    owner = forward.owner if forward else None
    known = owner is None or owner.module.path.startswith(f"{LAYERS}moe/")
    moves = owner is None or not known or _asks_for_a_backend(owner)
    said = (OWN_FORWARD, Truth(FALSE if known else TRUE)), (MOVES, Truth(TRUE if moves else FALSE))
    return Primitive("experts", (*machine.settings(cls, positional, keywords), *said))


def _asks_for_a_backend(cls: Class) -> bool:
    """Whether the class, or a function of its file that it calls, asks which backend there is."""
    asking = (name for name, piece in cls.module.pieces.items() if BACKEND_ASKED in piece.text)
    called = (re.search(rf"\b{re.escape(name)}\(", cls.text) for name in asking)
    return BACKEND_ASKED in cls.text or any(called)


def _own_sum(machine: Calls, _: Class, positional: Arguments, keywords: Keywords) -> Primitive:
    """A sum that a stage brings along says what runs, and where that is written."""
    run = positional[0] if positional else keywords.get("run", NONE)
    return Primitive("own sum", (("run", run), ("at", Const(machine.state.place(WHOLE)))))


CLASSES: Mapping[str, Build] = {
    OWN_SUM: _own_sum,
    COMMUNICATOR: _communicator,
    ROW_LINEAR: _row_linear,
    **dict.fromkeys(EXPERT_LAYERS, _expert_layer),
}


# layers ----------------------------------------------------------------------------------------


def _row(machine: Blocks, block: Primitive, positional: Arguments, keywords: Keywords) -> Value:
    """A row-parallel linear layer: a partial sum, summed up unless it is told otherwise."""
    logic = machine.logic
    axes, present = _row_group(machine, block)
    skip = keywords.get("skip_all_reduce", positional[1] if len(positional) > 1 else NONE)
    reduces = logic.all_of(
        machine.truth(machine.setting(block, "reduce_results", Truth(TRUE))),
        logic.negation(machine.truth(skip)),
        logic.negation(_published_skip(machine)),
    )
    value = machine.sharded(block, positional, axes, present=present, reduces=reduces)
    return Items((value, Text("bias")))


def _row_group(machine: Blocks, block: Primitive) -> tuple[tuple[Axis, ...], Cond]:
    """Which group the layer's output is split over, and when it is split at all."""
    logic = machine.logic
    axes: tuple[Axis, ...] = ("TP",)
    present = TRUE
    for cond, size in alternatives(machine.setting(block, "tp_size", NONE)):
        if size == Const(1):
            present = logic.both(present, logic.negation(cond))
        elif isinstance(size, Text) and "attn" in size.text:
            axes = ("ATTN_TP",)
    for cond, group in alternatives(machine.setting(block, "parallel_group", NONE)):
        if group == Const("replicated"):
            present = logic.both(present, logic.negation(cond))
        elif group == Const("attn_tp"):
            axes = ("ATTN_TP",)
    if block.setting("use_dp_attention_reduce") == Truth(TRUE):
        axes = ("ATTN_TP",)
    return axes, present


def _published_skip(machine: Blocks) -> Cond:
    """When this source's row-parallel layer is told by the forward context to skip."""
    linear = machine.state.index.module(LINEAR_FILE)
    if linear is None or PUBLISHED_SKIP not in linear.imports:
        return FALSE
    function = linear.resolve(PUBLISHED_SKIP)
    if function is None or isinstance(function, Class):
        return FALSE
    return machine.truth(machine.call(Routine(function), (), {}))


def _experts(machine: Blocks, block: Primitive, given: Arguments, keywords: Keywords) -> Value:
    """Routed experts: partial sums over EP and MoE-TP, unless the dispatcher combined them."""
    logic = machine.logic
    frame = machine.state.frame
    frame.live = logic.both(frame.live, logic.negation(_refused(machine, given, keywords)))
    settings = dict(block.settings)
    # behind a communicator rows are a rank's own with any backend, moved or not: a sum mixes tokens
    scattered = TRUE if machine.state.communicators else FALSE
    moves = logic.either(scattered, machine.truth(settings.get(MOVES, Truth(TRUE))))
    arrives = logic.any_of(
        logic.atom("FI"),
        logic.both(moves, logic.negation(logic.atom(A2A_NONE))),
        logic.atom(LOCAL_WORK) if _works_locally(machine) else FALSE,
        _sums_inside(machine, keywords),
    )
    reduces = machine.truth(settings.get("reduce_results", Truth(FALSE)))
    own = machine.truth(settings.get(OWN_FORWARD, Truth(FALSE))) == TRUE
    return machine.routed(MOE_AXES, arrives=arrives, reduces=reduces, born=not own)


def _refused(machine: Blocks, given: Arguments, keywords: Keywords) -> Cond:
    """Where the class that is picked for the experts needs more than it is called with."""
    factory = machine.state.frame.module.resolve(EXPERT_FACTORY)
    if not isinstance(factory, Function) or isinstance(factory.node, ast.Lambda):
        return FALSE
    ends = []
    machine.state.enter(Frame(factory.module, factory.name, None, TRUE))
    for statement in factory.node.body:
        match statement:
            case ast.If(test=test, body=[ast.Return(value=ast.Name(id=name))]):
                picked = factory.module.lookup(name)
                forward = picked.method("forward") if isinstance(picked, Class) else None
                if forward is not None and _needs(forward, keywords) > len(given):
                    ends.append(machine.truth(machine.evaluate(test)))
    machine.state.leave()
    return machine.logic.any_of(*ends)


def _needs(function: Function, keywords: Keywords) -> int:
    """How many arguments by place a method must have beside these."""
    arguments = function.node.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args)][1:]
    required = names[: len(names) - len(arguments.defaults)]
    return len([name for name in required if name not in keywords])


def _sums_inside(machine: Blocks, keywords: Keywords) -> Cond:
    """When the layer is handed what a kernel needs to sum up by itself."""
    handed = [value for name, value in keywords.items() if "workspace" in name]
    none = (machine.compare(ast.Is(), value, NONE) for value in handed)
    return machine.logic.any_of(*(machine.logic.negation(cond) for cond in none))


def _works_locally(machine: Blocks) -> bool:
    """Whether this source knows data-parallel weights, which leave nothing to sum."""
    utils = machine.state.index.module(UTILS_FILE)
    return utils is not None and LOCAL_WORK.rpartition(" >")[0] in utils.text


CALLS: Mapping[str, BlockCall] = {
    "row": _row,
    "experts": _experts,
    "expert class": lambda _machine, _block, _, keywords: Primitive(
        "experts", tuple(keywords.items())
    ),
}


# functions -------------------------------------------------------------------------------------


def _flag(flag: str) -> Call:
    return lambda machine, _node, _positional, _keywords: machine.state.flag(flag)


def _stage(kind: str) -> Call:
    setting = ("kind", Const(kind))
    return lambda _machine, _node, _, keywords: Primitive("stage", (setting, *keywords.items()))


def _scatter_sum(axes: tuple[Axis, ...]) -> Call:
    def call(machine: Named, node: ast.Call, positional: Arguments, _: Keywords) -> Value | None:
        if len(positional) < 2:
            return None
        summed = machine.reduce(positional[1], axes)
        machine.rebind(node.args[0], summed)
        return summed

    return call


def _moves_rows(machine: Named, node: ast.Call, positional: Arguments, _: Keywords) -> Value | None:
    if len(positional) < 2:
        return None
    machine.sink("scatter", positional[1], FALSE)
    machine.rebind(node.args[0], Text("hidden_states"))
    return NONE


def _fused_norm(machine: Named, _: ast.Call, positional: Arguments, keywords: Keywords) -> Value:
    first = positional[0] if positional else next(iter(keywords.values()), NONE)
    machine.reduce(first, WHOLE)
    return HIDDEN_AND_RESIDUAL


def _stages(machine: Named, _: ast.Call, positional: Arguments, __: Keywords) -> Value:
    def boundaries(items: Arguments) -> Value:
        return Items(tuple(boundary(machine, item) for item in items))

    match positional:
        case [Choice() as lists]:
            # some layers have more of them than others
            return machine.over(
                lists, lambda one: boundaries(one.values if isinstance(one, Items) else (one,))
            )
    return boundaries(positional)


FUNCTIONS: Mapping[str, Call] = {
    FUSED_NORM: _fused_norm,
    FORWARD_CONTEXT: lambda *_: Primitive("context"),
    EXPERT_FACTORY: lambda *_: Primitive("expert class"),
    **dict.fromkeys(STAGE_FACTORIES, _stages),
    **{name: _flag(flag) for name, flag in FLAG_FUNCTIONS.items()},
    **{name: _scatter_sum(axes) for name, axes in SCATTER_SUMS.items()},
    MOVES_ROWS: _moves_rows,
    **{name: _stage(kind) for name, kind in STAGE_DECLARATIONS.items()},
}
