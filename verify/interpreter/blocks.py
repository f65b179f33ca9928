"""Upstream's building blocks: linear and expert layers, collectives, communicators, boundaries."""

import ast
from collections.abc import Mapping
from dataclasses import replace

from verify.interpreter.expressions import Expressions
from verify.interpreter.index import Class
from verify.interpreter.primitives import (
    A2A_NONE,
    ALLOW,
    ATTENTION,
    COMMUNICATOR_EXIT,
    COMMUNICATOR_FILE,
    COMMUNICATOR_FLAGS,
    GROUPS,
    IS_LAST,
    LOCAL_WORK,
    OWN_FORWARD,
    UTILS_FILE,
    WHOLE,
    Axis,
)
from verify.interpreter.state import Consumer, Reduction, Sink
from verify.interpreter.values import (
    NONE,
    Const,
    Items,
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
    clipped,
    parts_of,
)
from verify.logic.diagrams import FALSE, TRUE, Cond

DEFERRED = "exit.defer_moe_finalize"
MOE_AXES: tuple[Axis, ...] = ("EP", "MOE_TP")
PUBLISHED_SKIP = "should_skip_mlp_all_reduce"


class Blocks(Expressions):
    """What each building block does to the partial sums that go through it."""

    def is_attention(self, cls: Class) -> bool:
        """Whether the class is a token mixer: its reductions are not an MLP's."""
        return cls.has(ATTENTION)

    def reduce(self, value: Value, axes: tuple[Axis, ...], *, when: Cond = TRUE) -> Value:
        """Sum a tensor up over the groups `axes`, where the path leads here and `when` holds."""
        live = self.logic.both(self.state.here, when)
        if live == FALSE:
            return value
        place = self._reduction(axes, when)
        parts = parts_of(self.logic, value)
        if not parts:
            # summed up, so it was owed; where it was born is not known
            parts = (Part(self.state.origin(place, axes, born=False), self.state.here),)
        return Tensor(tuple(self._summed(part, place, live) for part in parts))

    def _reduction(self, axes: tuple[Axis, ...], when: Cond) -> Place:
        place = self.state.place(axes)
        if when != FALSE:
            live = self.logic.both(self.state.live, when)
            if live != FALSE:
                self.state.reductions.append(Reduction(place, live))
        return place

    def _summed(self, part: Part, place: Place, live: Cond) -> Part:
        before = part.reduced.get(place, FALSE)
        return replace(part, reduced={**part.reduced, place: self.logic.either(before, live)})

    def group_method(
        self,
        group: str,
        name: str,
        positional: tuple[Value, ...],
        keywords: Mapping[str, Value],
    ) -> Value:
        """A collective called as a method of a process group."""
        axes = next((axes for key, axes in GROUPS.items() if key in group), WHOLE)
        values = (*positional, *keywords.values())
        index = 1 if name == "reduce_scatter_tensor" and len(values) > 1 else 0
        return self.reduce(values[index], axes) if values else NONE

    def setting(self, block: Primitive, name: str, default: Value) -> Value:
        """A block's setting; where an alternative leaves it out, the default."""
        found = block.setting(name)
        if found is None or found == Text("default"):
            return default
        return found

    def block_call(
        self, block: Primitive, positional: tuple[Value, ...], keywords: Mapping[str, Value]
    ) -> Value:
        """Call a block."""
        match block.kind:
            case "row":
                return self.row(block, positional, keywords)
            case "experts":
                return self.experts(positional, keywords, settings=dict(block.settings))
            case "expert class":
                return Primitive("experts", tuple(keywords.items()))
            case "many":
                return self.call(block.setting("item") or NONE, positional, keywords)
        return Text(block.kind)

    def block_method(
        self,
        block: Primitive,
        name: str,
        positional: tuple[Value, ...],
        keywords: Mapping[str, Value],
    ) -> Value | None:
        """Call a block's method."""
        first = positional[0] if positional else keywords.get("hidden_states", NONE)
        match block.kind, name:
            case "communicator", _ if name in COMMUNICATOR_FLAGS:
                self._asked(block, name)
                flag = self.logic.atom(COMMUNICATOR_FLAGS[name])
                allowed = self.allowed(block) if COMMUNICATOR_FLAGS[name] == "RS" else TRUE
                return Truth(self.logic.both(allowed, flag))
            case "communicator", _ if name == COMMUNICATOR_EXIT:
                self.sink("communicator", first, self.scatter_sums(block))
                return Items((Text("hidden_states"), Text("residual")))
            case "communicator", "prepare_attn" | "prepare_mlp" | _ if name.startswith("prepare"):
                return Items((Text("hidden_states"), Text("residual")))
            case "boundary", "finish" | "complete_now" | "branch_output":
                reduced = self.truth(keywords.get("already_reduced", Truth(FALSE)))
                return self.finish(block, first, already=reduced)
            case "boundary", "exit" | "ffn_exit":
                return Primitive("exit", block.settings)
            case "exit", "finish":
                return self.finish(block, first)
            case "boundary", _:
                return Text("hidden_states")
            case "context", "scoped":
                return Primitive("scope", tuple(keywords.items()))
            case "context", "set" if len(positional) > 1 and isinstance(positional[0], Const):
                self.state.context[str(positional[0].value)] = positional[1]
                return NONE
            case (("row" | "experts"), "forward" | "__call__" | "forward_impl" | "run_moe_core"):
                return self.block_call(block, positional, keywords)
            case "many", _:
                return None
        return clipped(f"{block.kind}.{name}()")

    def _asked(self, communicator: Primitive, name: str) -> None:
        """Note a layer that asks whether to leave its sum to the next and never says it is last."""
        if COMMUNICATOR_FLAGS[name] == "AF" and communicator.setting(IS_LAST) is None:
            module = self.state.index.module(COMMUNICATOR_FILE)
            if module is not None and IS_LAST in module.text:
                self.state.past_the_end.append(self.state.place(()))

    def allowed(self, communicator: Primitive) -> Cond:
        """When the communicator was told that the block can leave its sum to a reduce-scatter."""
        allowed = self.truth(self.setting(communicator, ALLOW, Truth(FALSE)))
        self.state.allows = self.state.allows or allowed != FALSE
        return allowed

    def scatter_sums(self, communicator: Primitive) -> Cond:
        """When the communicator's exit sums up what it is given, by this source's own words."""
        by_flag = self.logic.both(self.allowed(communicator), self.logic.atom("RS"))
        if self.reads_dp():
            return self.logic.either(self.logic.atom("DP"), by_flag)
        return by_flag

    def reads_dp(self) -> bool:
        """Whether this source's communicator sums by reduce_scatterv where DP holds."""
        module = self.state.index.module(COMMUNICATOR_FILE)
        return module is not None and "should_use_dp_reduce_scatterv" in module.text

    def _sums_inside(self, keywords: Mapping[str, Value]) -> Cond:
        """When the layer is handed what a kernel needs to sum up by itself."""
        handed = [value for name, value in keywords.items() if "workspace" in name]
        none = (self.compare(ast.Is(), value, NONE) for value in handed)
        return self.logic.any_of(*(self.logic.negation(cond) for cond in none))

    def works_locally(self) -> bool:
        """Whether this source knows data-parallel weights, which leave nothing to sum."""
        utils = self.state.index.module(UTILS_FILE)
        return utils is not None and LOCAL_WORK.rpartition(" >")[0] in utils.text

    def sink(self, kind: str, value: Value, sums: Cond) -> None:
        """A consumer takes the tensor."""
        frame = self.state.frame
        self.state.sinks.append(
            Sink(
                consumer=Consumer(
                    kind=kind,
                    file=frame.module.path,
                    line=frame.called.lineno if frame.called else frame.line,
                ),
                parts=parts_of(self.logic, value),
                when=self.state.live,
                sums=sums,
            )
        )

    def finish(self, block: Primitive, value: Value, *, already: Cond = FALSE) -> Value:
        """A stage's boundary takes the stage's output."""
        kind = block.setting("kind")
        if kind == Const("ffn"):
            complete = self.truth(self.setting(block, "output_complete", Truth(FALSE)))
            published = [self.logic.atom(flag) for flag in self.state.published]
            # where flags are published, only the scope that published them sums
            in_scope = self.logic.any_of(*published) if block.kind == "exit" else FALSE
            owed = in_scope if published else TRUE
            done = self.logic.either(complete, already)
            frame = self.state.frame
            before = frame.live
            # where it asked for a deferred finalize it is given a handoff, not the sum
            handed = self.logic.negation(self.logic.atom(DEFERRED))
            frame.live = self.logic.both(before, handed)
            self.sink("boundary", value, self.logic.both(owed, self.logic.negation(done)))
            frame.live = before
        return Text("hidden_states")

    def boundary(self, item: Value) -> Value:
        """The boundary of one (stage, norm) pair."""
        stage = item.values[0] if isinstance(item, Items) and item.values else item
        return self.over(
            stage,
            lambda one: (
                Primitive("boundary", one.settings)
                if isinstance(one, Primitive)
                else Primitive("boundary")
            ),
        )

    def row(
        self, block: Primitive, positional: tuple[Value, ...], keywords: Mapping[str, Value]
    ) -> Value:
        """A row-parallel linear layer: a partial sum, summed up unless it is told otherwise."""
        axes, present = self._row_group(block)
        skip = keywords.get("skip_all_reduce", positional[1] if len(positional) > 1 else NONE)
        reduces = self.logic.all_of(
            self.truth(self.setting(block, "reduce_results", Truth(TRUE))),
            self.logic.negation(self.truth(skip)),
            self.logic.negation(self.published_skip()),
        )
        live = self.logic.both(self.state.here, present)
        if live == FALSE:
            return Items((self.combined(*positional), Text("bias")))
        when = self.logic.both(live, reduces)
        place = self._reduction(axes, self.logic.both(present, reduces))
        part = Part(self.row_origin(block, place, axes), live)
        if when != FALSE:
            part = self._summed(part, place, when)
        return Items((Tensor((part,)), Text("bias")))

    def row_origin(self, block: Primitive, place: Place, axes: tuple[Axis, ...]) -> Origin:
        """What the layer's partial sum comes from."""
        return self.state.origin(place, axes)

    def _row_group(self, block: Primitive) -> tuple[tuple[Axis, ...], Cond]:
        """Which group the layer's output is split over, and when it is split at all."""
        axes: tuple[Axis, ...] = ("TP",)
        present = TRUE
        for cond, size in alternatives(self.setting(block, "tp_size", NONE)):
            if size == Const(1):
                present = self.logic.both(present, self.logic.negation(cond))
            elif isinstance(size, Text) and "attn" in size.text:
                axes = ("ATTN_TP",)
        for cond, group in alternatives(self.setting(block, "parallel_group", NONE)):
            if group == Const("replicated"):
                present = self.logic.both(present, self.logic.negation(cond))
            elif group == Const("attn_tp"):
                axes = ("ATTN_TP",)
        if block.setting("use_dp_attention_reduce") == Truth(TRUE):
            axes = ("ATTN_TP",)
        return axes, present

    def published_skip(self) -> Cond:
        """When this source's row-parallel layer is told by the forward context to skip."""
        linear = self.state.index.module("sglang/srt/layers/linear.py")
        if linear is None or PUBLISHED_SKIP not in linear.imports:
            return FALSE
        function = linear.resolve(PUBLISHED_SKIP)
        if function is None or isinstance(function, Class):
            return FALSE
        return self.truth(self.call(Routine(function), (), {}))

    def experts(
        self,
        positional: tuple[Value, ...],
        keywords: Mapping[str, Value],
        settings: Mapping[str, Value],
    ) -> Value:
        """Routed experts: partial sums over EP and MoE-TP, unless the dispatcher combined them."""
        arrives = self.logic.any_of(
            self.logic.atom("FI"),
            self.logic.negation(self.logic.atom(A2A_NONE)),
            self.logic.atom(LOCAL_WORK) if self.works_locally() else FALSE,
            self._sums_inside(keywords),
        )
        reduces = self.truth(settings.get("reduce_results", Truth(FALSE)))
        place = self._reduction(MOE_AXES, reduces)
        own = self.truth(settings.get(OWN_FORWARD, Truth(FALSE))) == TRUE
        origin = self.state.origin(place, MOE_AXES, arrives=arrives, born=not own)
        part = Part(origin, self.state.here)
        when = self.logic.both(self.state.here, reduces)
        if when != FALSE:
            part = self._summed(part, place, when)
        return Tensor((part,))
