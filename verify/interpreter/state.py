"""What one run of the interpreter carries along: frames, budget, what was reduced and consumed."""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from verify.interpreter.frames import Frames
from verify.interpreter.index import Class, Index, Module, UnreadableError
from verify.interpreter.values import (
    Axis,
    Origin,
    Part,
    Place,
    Text,
    Truth,
    Value,
    parts_of,
)
from verify.logic.diagrams import FALSE, TRUE, Cond, Logic, TooLargeError

MAX_STEPS = 20_000
MAX_DEPTH = 30


# what is done to a sum other than as Python does it; docs/interpreter.md says what each can miss
LOOP = "loop run once"
TURN = "turn ended early"
HANDLER = "handler not run"
CALL = "call not followed"
EFFECT = "call whose result nobody keeps"
OBJECT = "object not followed"


class UnresolvedError(Exception):
    """The source does something that cannot be followed; the message says what."""


# what following a source may run into; anything else is a defect of this tool
CANNOT_FOLLOW = (UnresolvedError, TooLargeError, UnreadableError, RecursionError)


Called: TypeAlias = tuple[str, int, int]  # file and line of a function, and whose it is


@dataclass(frozen=True, order=True)
class Approximation:
    """A step that is not exact, taken with a sum that is owed: of which kind, and where."""

    kind: str
    file: str
    line: int


@dataclass(eq=False)
class Frame:
    """One call in progress.

    `live` is the condition under which its next statement runs, counted from its own start; `above`
    is the one under which it was called, once somebody has asked. `turn` are the names as this turn
    of the innermost loop found them. Values inside a call are conditioned on what happens inside
    it; they meet the rest where they are merged into the caller's.
    """

    module: Module
    method: str
    owner: Class | None
    live: Cond
    env: dict[str, Value] = field(default_factory=dict)
    returns: list[tuple[Cond, Value]] = field(default_factory=list)
    called: ast.Call | None = None
    called_name: str = ""
    line: int = 0
    above: Cond | None = None
    who: Called | None = None
    turn: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Reduction:
    """A collective that ran: where, when, and on which flags its guard was asked."""

    place: Place
    when: Cond


@dataclass(frozen=True, kw_only=True)
class Consumer:
    """Who takes a tensor, and where it is handed over."""

    kind: str
    file: str
    line: int


@dataclass(frozen=True, eq=False)
class Sink:
    """Where a tensor left the layer: who took it, when, and when that consumer sums it up."""

    consumer: Consumer
    parts: tuple[Part, ...]
    when: Cond
    sums: Cond

    @property
    def kind(self) -> str:
        """The kind of consumer."""
        return self.consumer.kind


@dataclass(eq=False)
class Summary:
    """What is known so far of a call that comes back to itself; None: that it does not return.

    `takes` is the outline of its arguments.
    """

    takes: object
    value: Value | None = None


@dataclass(eq=False)
class State(Frames[Frame]):
    """The state of one run; `started` makes one that knows nothing but the flags."""

    index: Index
    logic: Logic
    frames: list[Frame] = field(default_factory=list)
    frame: Frame = field(init=False, repr=False)
    context: dict[str, Value] = field(default_factory=dict)
    published: tuple[str, ...] = ()
    open_flags: bool = False
    theory: bool = False
    steps: int = 0
    reductions: list[Reduction] = field(default_factory=list)
    sinks: list[Sink] = field(default_factory=list)
    past_the_end: list[Place] = field(default_factory=list)
    communicators: int = 0
    allows: bool = False
    origins: dict[tuple[object, ...], Origin] = field(default_factory=dict)
    entered: set[tuple[str, int]] = field(default_factory=set)
    approximated: set[Approximation] = field(default_factory=set)
    summaries: dict[Called, Summary] = field(default_factory=dict)

    def step(self) -> None:
        """Count one statement or call; a run that takes too many is unresolved."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise UnresolvedError(f"more than {MAX_STEPS} steps")

    def approximate(self, kind: str, values: Iterable[Value]) -> None:
        """Note that this step is not exact, where one of the values holds a sum that is owed."""
        if any(part.axes for value in values for part in parts_of(self.logic, value)):
            self.note(kind)

    def note(self, kind: str) -> None:
        """Note that this step is not exact."""
        frame = self.frame
        line = frame.line or (frame.called.lineno if frame.called else 0)
        self.approximated.add(Approximation(kind, frame.module.path, line))

    @property
    def live(self) -> Cond:
        """The path condition from the start of the run."""
        frame = self.frame
        if frame.above is None:
            frame.above = self.logic.all_of(*(caller.live for caller in self.frames[:-1]))
        return self.logic.both(frame.above, frame.live)

    @property
    def here(self) -> Cond:
        """The path condition inside the innermost call."""
        return self.frames[-1].live if self.frames else TRUE

    def place(self, axes: tuple[Axis, ...]) -> Place:
        """Where the current call stands: the innermost call written in a model file."""
        models = self.index.library.models
        frames = [f for f in self.frames if f.module.path.startswith(models)] or self.frames
        frame = frames[-1]
        node = frame.called
        return Place(
            file=frame.module.path,
            line=node.lineno if node else 0,
            column=node.col_offset if node else 0,
            cls=frame.owner.name if frame.owner else None,
            method=frame.method,
            collective=frame.called_name,
            axes=axes,
        )

    def origin(
        self,
        place: Place,
        axes: tuple[Axis, ...],
        *,
        arrives: Cond = FALSE,
        born: bool = True,
        told: tuple[object, ...] = (),
    ) -> Origin:
        """What a part born now comes from."""
        key = (place, axes, arrives, born, told)
        known = self.origins.get(key)
        if known is None:
            known = Origin(place=place, axes=axes, arrives=arrives, born=born, told=told)
            self.origins[key] = known
        return known

    def flag(self, name: str) -> Truth:
        """The flag as a truth value."""
        return Truth(self.logic.atom(name))

    def published_field(self, name: str) -> Value:
        """A field of the forward context: what the layer published, or what may have been."""
        if name in self.context:
            return self.context[name]
        library = self.index.library
        if name in library.carriers:
            return self.flag(library.carriers[name]) if self.open_flags else Truth(Cond(0))
        return Text(f"{library.context}().{name}")

    def with_context(self, fields: Mapping[str, Value]) -> dict[str, Value]:
        """Publish `fields`; returns what was published before, to be restored."""
        before = self.context
        self.context = {**before, **fields}
        return before


def started(index: Index, *, theory: bool = False) -> State:
    """A run that begins; under `theory` predicates are followed to their last atom."""
    return State(index, Logic(index.library.flags), theory=theory)
