"""What SGLang's communicators and layer boundaries take over, and when they sum it up."""

from collections.abc import Mapping

from verify.engines.sglang.vocabulary import (
    ALLOW,
    COMMUNICATOR_EXIT,
    COMMUNICATOR_FILE,
    COMMUNICATOR_FLAGS,
    FLAG_NAMES,
    IS_LAST,
)
from verify.interpreter.blocks import Blocks
from verify.interpreter.expressions import Expressions
from verify.interpreter.library import Arguments, Keywords
from verify.interpreter.state import UnresolvedError
from verify.interpreter.values import (
    NONE,
    Const,
    Items,
    Primitive,
    Text,
    Truth,
    Value,
)
from verify.logic.diagrams import FALSE, TRUE, Cond

DEFERRED = "exit.defer_moe_finalize"
FORWARDS = ("forward", "__call__", "forward_impl", "run_moe_core")
HIDDEN_AND_RESIDUAL = Items((Text("hidden_states"), Text("residual")))
# the published field of each flag that a boundary's exit may publish
PUBLISHED: Mapping[str, str] = {"AF": "fuse_mlp_allreduce", "RS": "mlp_reduce_scatter"}


def method(
    machine: Blocks, block: Primitive, name: str, positional: Arguments, keywords: Keywords
) -> Value | None:
    """Call a block's method; None where it is not known."""
    first = positional[0] if positional else keywords.get("hidden_states", NONE)
    match block.kind:
        case "communicator":
            return _of_communicator(machine, block, name, first)
        case "boundary" | "exit":
            return _of_boundary(machine, block, name, first, keywords)
        case "context":
            return _of_context(machine, name, positional, keywords)
        case "row" | "experts" if name in FORWARDS:
            return machine.block_call(block, positional, keywords)
    return None


def _of_communicator(machine: Blocks, block: Primitive, name: str, first: Value) -> Value | None:
    if name in COMMUNICATOR_FLAGS:
        _asked(machine, block, name)
        flag = machine.logic.atom(COMMUNICATOR_FLAGS[name])
        allowed = _allowed(machine, block) if COMMUNICATOR_FLAGS[name] == "RS" else TRUE
        return Truth(machine.logic.both(allowed, flag))
    if name == COMMUNICATOR_EXIT:
        machine.sink("communicator", first, _scatter_sums(machine, block))
        return HIDDEN_AND_RESIDUAL
    return HIDDEN_AND_RESIDUAL if name.startswith("prepare") else None


def _of_boundary(
    machine: Blocks, block: Primitive, name: str, first: Value, keywords: Keywords
) -> Value | None:
    match block.kind, name:
        case "boundary", "finish" | "complete_now" | "branch_output":
            reduced = machine.truth(keywords.get("already_reduced", Truth(FALSE)))
            return _finish(machine, block, first, already=reduced)
        case "boundary", "exit" | "ffn_exit":
            return Primitive("exit", block.settings)
        case "exit", "finish":
            return _finish(machine, block, first)
    return Text("hidden_states") if block.kind == "boundary" else None


def _of_context(
    machine: Blocks, name: str, positional: Arguments, keywords: Keywords
) -> Value | None:
    match name, positional:
        case "scoped", _:
            return Primitive("scope", tuple(keywords.items()))
        case "set", [Const(field), value, *_]:
            machine.state.context[str(field)] = value
            return NONE
    return None


def attribute(machine: Expressions, block: Primitive, name: str) -> Value | None:
    """A flag as a boundary's exit publishes it."""
    known = block.kind == "exit" and name in FLAG_NAMES
    return machine.state.flag(FLAG_NAMES[name]) if known else None


def scope(machine: Expressions, block: Primitive) -> Mapping[str, Value] | None:
    """The fields that entering the block publishes; None where it is no scope."""
    if block.kind == "scope":
        return dict(block.settings)
    if block.kind == "exit":
        return {PUBLISHED[flag]: machine.state.flag(flag) for flag in machine.state.published}
    return None


def boundary(machine: Blocks, item: Value) -> Value:
    """The boundary of one (stage, norm) pair. Raises `UnresolvedError` for an unknown stage."""
    stage = item.values[0] if isinstance(item, Items) and item.values else item

    def of(one: Value) -> Value:
        if not isinstance(one, Primitive):
            # whose sums it makes, nobody could say
            raise UnresolvedError(f"which stage is {machine.written(one)}")
        return Primitive("boundary", one.settings)

    return machine.over(stage, of)


def _asked(machine: Blocks, communicator: Primitive, name: str) -> None:
    """Note a layer that asks whether to leave its sum to the next and never says it is last."""
    if COMMUNICATOR_FLAGS[name] == "AF" and communicator.setting(IS_LAST) is None:
        module = machine.state.index.module(COMMUNICATOR_FILE)
        if module is not None and IS_LAST in module.text:
            machine.state.past_the_end.append(machine.state.place(()))


def _allowed(machine: Blocks, communicator: Primitive) -> Cond:
    """When the communicator was told that the block can leave its sum to a reduce-scatter."""
    allowed = machine.truth(machine.setting(communicator, ALLOW, Truth(FALSE)))
    machine.state.allows = machine.state.allows or allowed != FALSE
    return allowed


def _scatter_sums(machine: Blocks, communicator: Primitive) -> Cond:
    """When the communicator's exit sums up what it is given, by this source's own words."""
    by_flag = machine.logic.both(_allowed(machine, communicator), machine.logic.atom("RS"))
    module = machine.state.index.module(COMMUNICATOR_FILE)
    # where DP holds it sums by reduce_scatterv, in a source that asks for it
    if module is not None and "should_use_dp_reduce_scatterv" in module.text:
        return machine.logic.either(machine.logic.atom("DP"), by_flag)
    return by_flag


def _finish(machine: Blocks, block: Primitive, value: Value, *, already: Cond = FALSE) -> Value:
    """A stage's boundary takes the stage's output."""
    kind = block.setting("kind")
    if kind == Const("ffn"):
        logic = machine.logic
        complete = machine.truth(machine.setting(block, "output_complete", Truth(FALSE)))
        published = [logic.atom(flag) for flag in machine.state.published]
        # where flags are published, only the scope that published them sums
        in_scope = logic.any_of(*published) if block.kind == "exit" else FALSE
        owed = in_scope if published else TRUE
        done = logic.either(complete, already)
        frame = machine.state.frame
        before = frame.live
        # where it asked for a deferred finalize it is given a handoff, not the sum
        handed = logic.negation(logic.atom(DEFERRED))
        frame.live = logic.both(before, handed)
        machine.sink("boundary", value, logic.both(owed, logic.negation(done)))
        frame.live = before
    return Text("hidden_states")
