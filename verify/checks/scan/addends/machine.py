"""An interpreter that also follows values every rank holds in full, and where they are added.

The plain machine knows one kind of part: a partial sum that is owed. Here a tensor may hold two
more. A *complete* part (no axes) is a value that every rank of the group computes alike from what
all of them hold. An *addend* is a complete part that was added into a partial sum still owed: if
that sum is completed later, it counts once for every rank.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import replace

from verify.checks.scan.addends.same import SameMachine, fresh
from verify.checks.scan.judge import SIZE_OF
from verify.engines.sources import reading
from verify.interpreter.comparisons import operation
from verify.interpreter.index import Class, Function
from verify.interpreter.state import Sink, State
from verify.interpreter.values import (
    Axis,
    Const,
    Instance,
    Origin,
    Part,
    Place,
    Primitive,
    Routine,
    Tensor,
    Text,
    Truth,
    Value,
    alternatives,
    parts_of,
    union,
)
from verify.logic.diagrams import FALSE, TRUE, Cond

ENGINE = reading()
MODELS, TRAITS = ENGINE.library.models, ENGINE.traits
# how the size of the expert-parallel group is written
EP_SIZE = SIZE_OF["EP"].partition(" ")[0]
ADDING_METHODS = frozenset({"add", "add_", "sub", "sub_"})
# how a communicator is told what kind of layer it serves
MODES_FACTORY = "init_new"
SPARSE = "is_layer_sparse"
INPUT_NORM = "input_layernorm"
MODES = "layer_scatter_modes"
ADDING_FUNCTIONS = frozenset({"torch.add", "torch.sub"})

# a method that only gives a tensor another shape or type, whatever its arguments
_SHAPE_METHOD = re.compile(
    r"(?:view|reshape|to|type|contiguous|unsqueeze|squeeze|flatten|expand|transpose|permute|clone"
    r"|float|half|bfloat16|detach|view_as|type_as|expand_as)"
)


class AddendMachine(SameMachine):
    """Runs method bodies symbolically; tells what is added into a partial sum."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        # by origin: what a block's input is called
        self.names: dict[Origin, str] = {}
        # by origin: where a sharded layer was built, from the outermost call to the innermost
        self.built: dict[Origin, tuple[Place, ...]] = {}
        # by origin: what a row-parallel layer left complete
        self.whole: set[Origin] = set()
        # by origin: whether it was born inside a block with routed experts of its own
        self.inside_block: set[Origin] = set()
        # by sink: the boundary's stage or the communicator that took the tensor
        self.stages: dict[Sink, Primitive] = {}
        self.untold: set[Place] = set()
        # what was switched on for an expert layer
        self.handed: set[str] = set()
        # what normalises the layer's input, as each of its communicators was told
        self.norms: list[Value | None] = []
        # ... and what it was told about the rows that the layer runs on
        self.modes: list[Value | None] = []
        # by origin: shared experts of which every expert-parallel rank has one among its own
        self.fused: set[Origin] = set()
        self._fused_by = TRAITS.fused_shared(state.index)
        # as which expression their number was handed over, and whether to a router too; where the
        # block hands it on with their weights, and where it divides by the group's size
        self._number: ast.expr | None = None
        self._routed_elsewhere = False
        self._weighed = self._scaled = FALSE
        # where a value that was complete already was summed up, and when
        self.resummed: dict[Place, Cond] = {}

    # --- births

    def block_call(
        self, block: Primitive, positional: tuple[Value, ...], keywords: Mapping[str, Value]
    ) -> Value:
        """Call a block; what was switched on for routed experts is remembered."""
        result = super().block_call(block, positional, keywords)
        if block.kind != "experts":
            return result
        self.handed |= {name for name, value in block.settings if value == Truth(TRUE)}
        return self._with_fused(result, block.setting(self._fused_by or ""))

    def _with_fused(self, result: Value, number: Value | None) -> Value:
        """What experts leave, with the shared ones among them that every rank weighs in full."""
        if number is None or self._routed_elsewhere or not isinstance(result, Tensor):
            return result
        counted = self.logic.both(self._weighed, self.logic.negation(self._scaled))
        present = self.logic.all_of(self.state.here, self.truth(number), counted)
        if present == FALSE:
            return result
        place = self.state.place(())
        part = Part(self.state.origin(place, (), told=("fused",)), present)
        self.fused.add(part.origin)
        self.addends[part.origin] = place
        return Tensor((*result.parts, part))

    def complete(self, when: Cond, *, told: tuple[object, ...] = ()) -> Part:
        """A value that every rank holds in full, where `when` holds."""
        return Part(self.state.origin(self.state.place(()), (), told=told), when)

    def bind(
        self, function: Function, positional: tuple[Value, ...], keywords: Mapping[str, Value]
    ) -> None:
        """Fill a call's names; what a block with routed experts is given, every rank holds."""
        super().bind(function, positional, keywords)
        env = self.state.frame.env
        if function.name != "forward" or not is_block(env.get("self")):
            return
        first = [arg.arg for arg in function.node.args.args[1:2]]
        for name in first:
            given = env.get(name)
            if isinstance(given, Text):
                part = self.complete(TRUE, told=("input", given.text))
                self.names[part.origin] = given.text
                env[name] = Tensor((part,))

    def written(self, value: Value) -> str:
        """A stable text for a value; a block's input keeps the name it has without its part."""
        if isinstance(value, Tensor) and len(value.parts) == 1:
            return self.names.get(value.parts[0].origin, "tensor")
        return super().written(value)

    def build(
        self, cls: Class, positional: tuple[Value, ...], keywords: Mapping[str, Value]
    ) -> Value:
        """Construct an object; a row-parallel layer remembers who built it."""
        value = super().build(cls, positional, keywords)
        if isinstance(value, Primitive) and value.kind == "communicator":
            self.norms.append(value.setting(INPUT_NORM))
            self.modes.append(value.setting(MODES))
        if isinstance(value, Primitive) and value.kind == "row":
            return replace(value, settings=(*value.settings, ("built", Const(self._calls()))))
        return value

    def _calls(self) -> tuple[Place, ...]:
        """The calls written in model files that lead here, the outermost first."""
        return tuple(
            Place(
                file=frame.module.path,
                line=frame.called.lineno,
                column=frame.called.col_offset,
                cls=frame.owner.name if frame.owner else None,
                method=frame.method,
                collective=frame.called_name,
                axes=(),
            )
            for frame in self.state.frames
            if frame.called is not None and frame.module.path.startswith(MODELS)
        )

    def call(
        self, target: Value, positional: tuple[Value, ...], keywords: Mapping[str, Value]
    ) -> Value:
        """Call a value; a communicator's modes remember what kind of layer they were made for."""
        named = isinstance(target, Routine) and target.target.name == MODES_FACTORY
        if named and SPARSE in keywords:
            return Primitive("scatter modes", ((SPARSE, keywords[SPARSE]),))
        return super().call(target, positional, keywords)

    def call_node(self, node: ast.Call) -> Value:
        """Evaluate a call; who is told how many shared experts are among the routed is noted."""
        value = super().call_node(node)
        told = next((k.value for k in node.keywords if k.arg and k.arg == self._fused_by), None)
        if told is not None and isinstance(value, Primitive) and value.kind == "experts":
            self._number = told
        elif told is not None:
            self._routed_elsewhere = True
        elif self._number is not None and any(_alike(arg, self._number) for arg in node.args):
            self._weighed = self.logic.either(self._weighed, self.state.here)
        return value

    def sharded(
        self,
        block: Primitive,
        positional: tuple[Value, ...],
        axes: tuple[Axis, ...],
        *,
        present: Cond,
        reduces: Cond,
    ) -> Value:
        """A row-parallel layer: what it leaves is owed where it is sharded, else complete."""
        result = super().sharded(block, positional, axes, present=present, reduces=reduces)
        owed = parts_of(self.logic, result)
        whole = self.logic.both(self.state.here, self.logic.negation(present))
        if whole == FALSE:
            return result
        inside = any(is_block(frame.env.get("self")) for frame in self.state.frames)
        part = self.complete(whole, told=("row", block.setting("built"), inside))
        self.whole.add(part.origin)
        if inside:
            self.inside_block.add(part.origin)
        return Tensor((*owed, part))

    def sharded_origin(self, block: Primitive, place: Place, axes: tuple[Axis, ...]) -> Origin:
        """What the layer's partial sum comes from: who built it, and whether a block has it."""
        built = block.setting("built")
        inside = any(is_block(frame.env.get("self")) for frame in self.state.frames)
        origin = self.state.origin(place, axes, told=(built, inside))
        if isinstance(built, Const) and isinstance(built.value, tuple):
            self.built[origin] = built.value
        if inside:
            self.inside_block.add(origin)
        return origin

    def block_method(
        self,
        block: Primitive,
        name: str,
        positional: tuple[Value, ...],
        keywords: Mapping[str, Value],
    ) -> Value | None:
        """Call a block's method; a sink remembers what was declared to the one who takes it."""
        before = len(self.state.sinks)
        result = super().block_method(block, name, positional, keywords)
        if block.kind in ("boundary", "exit", "communicator"):
            self.stages.update(dict.fromkeys(self.state.sinks[before:], block))
        return result

    # --- operations

    def _binop(self, node: ast.BinOp) -> Value:
        left, right = self.evaluate(node.left), self.evaluate(node.right)
        if isinstance(node.op, ast.Div) and EP_SIZE in self.written(right):
            self._scaled = self.logic.either(self._scaled, self.state.here)
        if not parts_of(self.logic, left) and not parts_of(self.logic, right):
            return Text(operation(node.op, self.written(left), self.written(right))[:120])
        if isinstance(node.op, ast.Add | ast.Sub):
            return self.added(node, left, right)
        return self.combined(left, right)

    def _do_augassign(self, node: ast.AugAssign) -> None:
        left, right = self.evaluate(node.target), self.evaluate(node.value)
        if isinstance(node.op, ast.Add | ast.Sub):
            self.assign(node.target, self.added(node, left, right))
        else:
            self.assign(node.target, self.combined(left, right))

    def _by_method(
        self,
        receiver: Value,
        func: ast.expr,
        positional: tuple[Value, ...],
        keywords: Mapping[str, Value],
    ) -> Value | None:
        name = func.attr if isinstance(func, ast.Attribute) else ""
        if isinstance(receiver, Tensor) and isinstance(func, ast.Attribute):
            if name in ADDING_METHODS and positional:
                value = self.added(func, receiver, positional[0])
                if name.endswith("_"):
                    self.rebind(func.value, value)
                return value
            if _SHAPE_METHOD.fullmatch(name):
                return receiver
            if fresh(name):
                return self._owed_only(super()._by_method(receiver, func, positional, keywords))
        return super()._by_method(receiver, func, positional, keywords)

    def _opaque(
        self,
        target: Text,
        receiver: Value | None,
        positional: tuple[Value, ...],
        keywords: Mapping[str, Value],
    ) -> Value:
        called = self.state.frame.called
        if target.text in ADDING_FUNCTIONS and len(positional) > 1 and called is not None:
            return self.added(called, positional[0], positional[1])
        values = (*positional, *keywords.values())
        parts = union(self.logic, *(parts_of(self.logic, item) for item in values))
        if parts and self.alike(target.text) and all(map(self.same_everywhere, values)):
            return Tensor(parts)
        value = super()._opaque(target, receiver, positional, keywords)
        return self._owed_only(value) or value

    def combined(self, *values: Value) -> Value:
        """Several values in one: what was complete stays so only among its own kind."""
        value = super().combined(*values)
        if all(self.same_everywhere(item) for item in values):
            return value
        return self._owed_only(value) or value

    def _owed_only(self, value: Value | None) -> Value | None:
        """The value without what every rank holds in full; addends stay in the sum they are in."""
        if not isinstance(value, Tensor):
            return value
        left = tuple(part for part in value.parts if part.axes or part.origin in self.addends)
        return Tensor(left) if left else Text("value")

    def reduce(self, value: Value, axes: tuple[Axis, ...], *, when: Cond = TRUE) -> Value:
        """Sum a tensor up; of what was complete already it is remembered that it was."""
        whole = [p for p in parts_of(self.logic, value) if not p.axes and p.origin in self.whole]
        if whole:
            place = self.state.place(axes)
            present = self.logic.any_of(*(part.present for part in whole))
            summed = self.logic.all_of(self.state.live, when, present)
            self.resummed[place] = self.logic.either(self.resummed.get(place, FALSE), summed)
        return super().reduce(self._owed_only(value) or value, axes, when=when)

    def added(self, node: ast.AST, left: Value, right: Value) -> Value:
        """`left + right`, which also says what kind each of them is of."""
        sides = [parts_of(self.logic, left), parts_of(self.logic, right)]
        place = self._place(node)
        new = FALSE
        for mine, other, value in ((sides[0], sides[1], right), (sides[1], sides[0], left)):
            owed = self._unsummed(mine)
            if owed == FALSE:
                continue
            if not other and not isinstance(value, Const):
                self.untold.add(place)
            for part in other:
                if not part.axes and part.origin not in self.addends:
                    when = self.logic.all_of(self.state.here, owed, part.present)
                    new = self.logic.either(new, when)
        everything = union(self.logic, *sides)
        owed = self.logic.any_of(*(part.present for part in everything if part.axes))
        kept = [self._kept(part, owed, sides, (left, right)) for part in everything]
        parts = [part for part in kept if part is not None]
        if new != FALSE:
            origin = self.state.origin(place, (), told=("addend",))
            self.addends[origin] = place
            parts.append(Part(origin, new))
        return Tensor(tuple(parts)) if parts else Text("value")

    def _kept(
        self,
        part: Part,
        owed: Cond,
        sides: list[tuple[Part, ...]],
        values: tuple[Value, Value],
    ) -> Part | None:
        if part.axes or part.origin in self.addends:
            return part
        plain = all(side or self.same_everywhere(v) for side, v in zip(sides, values, strict=True))
        present = self.logic.both(part.present, self.logic.negation(owed))
        return replace(part, present=present) if plain and present != FALSE else None

    def _unsummed(self, parts: tuple[Part, ...]) -> Cond:
        """Where some part is a partial sum that no one has completed yet."""
        logic = self.logic
        found = FALSE
        for part in parts:
            for axis in part.axes:
                done = logic.any_of(
                    part.arrives, *(c for place, c in part.reduced.items() if axis in place.axes)
                )
                left = logic.both(logic.atom(SIZE_OF[axis]), logic.negation(done))
                found = logic.either(found, logic.both(part.present, left))
        return found

    def _place(self, node: ast.AST) -> Place:
        frame = self.state.frame
        return Place(
            file=frame.module.path,
            line=getattr(node, "lineno", frame.line),
            column=getattr(node, "col_offset", 0),
            cls=frame.owner.name if frame.owner else None,
            method=frame.method,
            collective="+",
            axes=(),
        )


def _alike(one: ast.expr, other: ast.expr) -> bool:
    """Whether two expressions that are read are written alike."""
    match one, other:
        case ast.Name(id=name), ast.Name(id=same):
            return name == same
        case ast.Attribute(value=owner, attr=name), ast.Attribute(value=beside, attr=same):
            return name == same and _alike(owner, beside)
    return type(one) is type(other) and ast.dump(one) == ast.dump(other)


def is_block(value: Value | None) -> bool:
    """Whether an object holds routed experts of its own."""
    if not isinstance(value, Instance):
        return False
    return any(
        isinstance(item, Primitive) and item.kind == "experts"
        for held in value.attributes.values()
        for _, item in alternatives(held)
    )
