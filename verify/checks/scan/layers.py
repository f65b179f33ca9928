"""Run every layer of the source once and collect what it reduces and who consumes it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from verify.checks.scan.addends.context_sums import context_sums
from verify.checks.scan.addends.groups import wrong_groups
from verify.checks.scan.addends.judge import Addends, judged, moving_backends
from verify.checks.scan.addends.local_sums import local_sums
from verify.checks.scan.addends.machine import AddendMachine
from verify.checks.scan.judge import Fault, faults, past_the_end
from verify.engines.sources import reading
from verify.engines.traits import ReductionGroups
from verify.interpreter.index import Class, Function, Index
from verify.interpreter.state import CANNOT_FOLLOW, Frame, Reduction, Sink, State, started
from verify.interpreter.values import Instance, Routine, Text, Value
from verify.logic.diagrams import FALSE, TRUE, Cond, Logic

ENGINE = reading()
HOLDS = ENGINE.constraints


@dataclass(frozen=True, eq=False)
class Facts:
    """What holds for the whole source: its flags' definitions and what its boundaries publish.

    `followed`: whether the definitions were; if not, nothing but what always holds is in `defined`.
    """

    index: Index
    logic: Logic
    followed: bool
    defined: Cond
    answers: Cond
    published: tuple[str, ...]
    known: frozenset[str]
    groups: ReductionGroups

    def state(self, *, open_flags: bool = False) -> State:
        """A fresh run that starts from these facts."""
        return State(
            index=self.index,
            logic=self.logic.copy(),
            published=self.published,
            open_flags=open_flags,
        )


@dataclass(eq=False)
class LayerRun:
    """One layer's run: reductions, sinks, faults, what always holds; whether it was given up."""

    cls: Class
    state: State
    faults: tuple[Fault, ...] = ()
    addends: Addends = field(default_factory=Addends)
    given_up: bool = False
    reductions: Sequence[Reduction] = field(default_factory=tuple)
    sinks: Sequence[Sink] = field(default_factory=tuple)
    theory: Cond = TRUE


def read_facts(index: Index) -> Facts:
    """Read the flags' definitions from the source."""
    state, followed = started(index), True
    try:
        defined, answers = HOLDS.definitions(state)
    except CANNOT_FOLLOW as error:
        index.give_up(ENGINE.files.shared, "what the flags are", error)
        # afresh: a table that is full stays full
        state, followed, defined, answers = started(index), False, TRUE, TRUE
    defined = state.logic.both(defined, HOLDS.general(state))
    defined = state.logic.both(defined, HOLDS.of_atoms(state, frozenset()))
    logic = state.logic.copy()
    try:
        groups = ENGINE.traits.groups(index, logic)
    except CANNOT_FOLLOW as error:
        index.give_up(ENGINE.files.communicator, "which groups it sums over", error)
        logic, groups = state.logic, ReductionGroups()
    known = frozenset(logic.atoms())
    return Facts(index, logic, followed, defined, answers, HOLDS.published(index), known, groups)


def unknown(function: Function) -> dict[str, Value]:
    """Every parameter by its own name: nobody is known who would leave one at its default."""
    arguments = function.node.args
    names = [arg.arg for arg in (*arguments.args[1:], *arguments.kwonlyargs)]
    return {name: Text(name) for name in names}


def run_layer(facts: Facts, cls: Class) -> LayerRun:
    """Build the layer with unknown arguments, run its forward, judge what leaves it."""
    state = facts.state()
    machine = AddendMachine(state)
    state.enter(Frame(cls.module, "<layer>", None, TRUE))
    run = LayerRun(cls, state)
    try:
        layer = Instance(cls)
        init = cls.method("__init__")
        if init is not None:
            machine.call(Routine(init, layer), (), unknown(init))
        state.reductions.clear()
        machine.sink("return", machine.call(layer, (), {}), FALSE)
        theory = state.logic.both(facts.defined, HOLDS.of_atoms(state, facts.known))
        if state.allows:
            theory = state.logic.both(theory, facts.answers)
        handed = frozenset(machine.handed)
        theory = state.logic.both(theory, HOLDS.refused(facts.index, cls, handed, state.logic))
        run.theory = theory
        run.faults = (*faults(state, theory, moving_backends(facts.index)), *past_the_end(state))
        addends = judged(machine, theory)
        groups = facts.groups
        others = (
            *wrong_groups(machine, theory, groups),
            *local_sums(machine, theory, groups),
            *context_sums(machine, theory, cls),
        )
        run.addends = replace(addends, faults=(*addends.faults, *others))
    except CANNOT_FOLLOW as error:
        facts.index.give_up(f"{cls.module.path}:{cls.line}", cls.name, error)
        run.given_up = True
    run.reductions, run.sinks = tuple(state.reductions), tuple(state.sinks)
    return run
