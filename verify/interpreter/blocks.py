"""A library's building blocks, and what all of them come down to: births, sums and consumers."""

from collections.abc import Mapping
from dataclasses import replace

from verify.interpreter.expressions import Expressions
from verify.interpreter.index import Class
from verify.interpreter.state import Consumer, Reduction, Sink
from verify.interpreter.values import (
    NONE,
    Axis,
    Origin,
    Part,
    Place,
    Primitive,
    Tensor,
    Text,
    Value,
    clipped,
    parts_of,
)
from verify.logic.diagrams import FALSE, TRUE, Cond


class Blocks(Expressions):
    """What the transfer functions of a library do to the partial sums that go through it."""

    def is_attention(self, cls: Class) -> bool:
        """Whether the class is a token mixer: its reductions are not an MLP's."""
        return cls.has(self.library.attention)

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
        known = self.library.groups.items()
        axes = next((axes for key, axes in known if key in group), self.library.whole)
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
        if block.kind == "many":
            return self.call(block.setting("item") or NONE, positional, keywords)
        call = self.library.calls.get(block.kind)
        return call(self, block, positional, keywords) if call else Text(block.kind)

    def block_method(
        self,
        block: Primitive,
        name: str,
        positional: tuple[Value, ...],
        keywords: Mapping[str, Value],
    ) -> Value | None:
        """Call a block's method; None for one of many blocks alike."""
        if block.kind == "many":
            return None
        found = self.library.method(self, block, name, positional, keywords)
        return clipped(f"{block.kind}.{name}()") if found is None else found

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

    def sharded(
        self,
        block: Primitive,
        positional: tuple[Value, ...],
        axes: tuple[Axis, ...],
        *,
        present: Cond,
        reduces: Cond,
    ) -> Value:
        """A layer that is split over `axes` where `present`, and sums up where `reduces`."""
        live = self.logic.both(self.state.here, present)
        if live == FALSE:
            return self.combined(*positional)
        when = self.logic.both(live, reduces)
        place = self._reduction(axes, self.logic.both(present, reduces))
        part = Part(self.sharded_origin(block, place, axes), live)
        if when != FALSE:
            part = self._summed(part, place, when)
        return Tensor((part,))

    def sharded_origin(self, block: Primitive, place: Place, axes: tuple[Axis, ...]) -> Origin:
        """What the layer's partial sum comes from."""
        return self.state.origin(place, axes)

    def routed(
        self, axes: tuple[Axis, ...], *, arrives: Cond, reduces: Cond, born: bool = True
    ) -> Value:
        """Experts that tokens are sent to: partial sums, complete already where `arrives`."""
        place = self._reduction(axes, reduces)
        origin = self.state.origin(place, axes, arrives=arrives, born=born)
        part = Part(origin, self.state.here)
        when = self.logic.both(self.state.here, reduces)
        if when != FALSE:
            part = self._summed(part, place, when)
        return Tensor((part,))
