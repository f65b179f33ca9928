"""Is what is added into a partial sum of the right kind? Judged where the tensor is consumed.

- *replicated*: every rank adds the same complete value and the sum is completed afterwards;
- *lost*: a slice that is sharded over the group is left where each rank has its own rows, which
  nobody sums up: every rank keeps its own slice and misses the others;
- *mixed*: such a slice is summed up there, over ranks that hold different tokens.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from verify.checks.scan.addends.completion import completed_at
from verify.checks.scan.addends.machine import SPARSE, AddendMachine
from verify.checks.scan.environment import READS
from verify.checks.scan.judge import OWN_ROWS, SIZE_OF, smallest_row, with_tokens
from verify.engines.sources import reading
from verify.engines.traits import LocalRows
from verify.interpreter.index import Class, Index, Module
from verify.interpreter.state import Consumer, Sink
from verify.interpreter.values import NONE, Place, Primitive, Truth
from verify.logic.diagrams import FALSE, TRUE, Cond

ENGINE = reading()
FLAGS, ROLES, ATOMS = ENGINE.flags, ENGINE.roles, ENGINE.atoms
PLATFORMS = ENGINE.constraints.platforms
Kind = Literal["replicated", "lost", "mixed", "narrow", "wide"]
# what makes rows local or leaves them gathered: nothing, a dispatcher that sums in combine, an
# all-to-all backend, expert weights that every rank holds, or a server flag that runs dense MLPs
# on local rows
Rows = Literal["gathered", "dispatched", "backend", "local-work", "dense"]
# why a sum runs over a wrong group: experts are split over two groups of which a fused norm, or
# what stands in for its kernel, takes one; or there are several copies of them, summed by the
# engine, by a fused norm or by the model itself
Group = Literal["split", "declined", "copies", "fused-copies", "own-copies"]
# what sums up rows that only this rank has: a fused norm, or a reduction of its own, of a dense
# MLP, of a context rank's, or of experts beside a backend that moves no tokens
Local = Literal["fused-local", "resummed", "context", "unmoved"]
# experts beside such a backend whose sum nobody runs
Unsent = Literal["unsent"]
# what every expert-parallel rank has among its routed experts
Fused = Literal["fused"]
Cause = Rows | Group | Local | Unsent | Fused
# those that an all-to-all backend brings
OF_BACKEND = ("backend", "unmoved", "unsent")
WIDE = "tp_size > 1"
BACKEND = ATOMS.no_dispatch.rpartition(".")[0]
_RANK = re.compile(r"_rank\b|\brank\b|rank_in_group")
_SIZE = re.compile(r"_size (?:>|==) |is_dp_attention_enabled")
# the server's option that runs dense MLPs, which every rank then holds, on its own rows
_OWN_ROWS = re.compile(r"dense_(?:ffn_)?fully_dp\(")
_MEMBER = re.compile(r"^\s+[A-Z]\w*\s*=\s*[\"'](\w+)[\"']", re.MULTILINE)
ASKED = re.compile(re.escape(BACKEND) + r"\.is_(\w+)\(")
# the same of a backend that has a name of its own there, and what is done with it as without any
_MOVES = re.compile(r"\b(?:\w*a2a_)?backend(?:\(\))?\.is_(\w+)\(")
_EXPERTS = re.compile(rf"^class (?:{'|'.join(ENGINE.structure.expert_layers)})\b", re.MULTILINE)
_AS_NONE = re.compile(r"\bis_none\(\)[^:]*:")
# a call without arguments: it may answer what the server's options say
_ASKS = re.compile(r"(?:not )?\w+\(\)(?:\.\w+)*(?: (?:==|!=|>|is|is not) \w+)?")
_NAMED = re.compile(r"^(\w+) = (.*)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One addend of the wrong kind.

    `places`: where it was added or, outermost first, the calls that built it; `rows`: the truth
    table over the flags; `backends`: for which all-to-all backends; `conditions`: what else it
    needs; `platforms`: the kinds of device without which it is not; `meant`: whether the option is
    meant for a model that has it; `summed`: the layer's own reduction that completes it, where the
    consumer does not; `completed`: the line that completes it, where that is known.
    """

    kind: Kind
    cause: Cause
    places: tuple[Place, ...]
    consumer: Consumer
    rows: int
    backends: tuple[str, ...]
    conditions: tuple[str, ...]
    environment: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    meant: bool
    summed: Place | None = None
    completed: Place | None = None

    @property
    def row(self) -> str:
        """The smallest row in which it happens."""
        return smallest_row(self.rows)


@dataclass(frozen=True, kw_only=True)
class Addends:
    """One run's faults, and the additions to a partial sum of which nothing could be told."""

    faults: tuple[Fault, ...] = ()
    untold: frozenset[Place] = frozenset()


def judged(machine: AddendMachine, theory: Cond) -> Addends:
    """Judge a run that has ended. Raises `TooLargeError` where its conditions outgrow the limit."""
    judge = Judge(machine, theory, known_backends(machine.state.index))
    return Addends(faults=tuple(judge.faults()), untold=frozenset(machine.untold))


class Judge:
    """Judges every sink of one run. `backends` are the all-to-all backends that models know."""

    def __init__(self, machine: AddendMachine, theory: Cond, backends: tuple[str, ...]) -> None:
        self.machine = machine
        self.logic = machine.logic
        self.theory = theory
        self.backends = backends
        # where the layer has routed experts at all
        self.routed = self.logic.any_of(*map(self.routed_in, machine.state.sinks))
        self.known = frozenset(self.logic.support(theory)) | frozenset(FLAGS) | {WIDE}

    def routed_in(self, sink: Sink) -> Cond:
        """Where what a consumer gets has routed experts in it, seen or declared outright."""
        taker = self.machine.stages.get(sink)
        if sink.kind == "boundary" and taker and taker.setting("sparse") == Truth(TRUE):
            # the experts may be handed to the layer when it runs
            return TRUE
        return self.logic.any_of(*(part.present for part in sink.parts if "EP" in part.axes))

    @staticmethod
    def _atom(backend: str) -> str:
        return f"{BACKEND}.is_{backend}()"

    def faults(self) -> Iterator[Fault]:
        """Every fault of the run."""
        for sink in self.machine.state.sinks:
            local = self._local_rows(sink)
            yield from self._replicated(sink, local)
            yield from self._sharded(sink, local)

    def _local_rows(self, sink: Sink) -> LocalRows:
        """What the consumer was told about the layer, and what it makes of it."""
        taker = self.machine.stages.get(sink)
        if taker is None:
            return LocalRows()
        if sink.kind == "boundary":
            size = taker.setting("dense_tp_size") or NONE
            return ENGINE.traits.boundary_rows(self.machine, taker.setting("sparse"), size)
        modes = taker.setting("layer_scatter_modes")
        if isinstance(modes, Primitive) and modes.kind == "scatter modes":
            return ENGINE.traits.communicator_rows(self.machine, modes.setting(SPARSE))
        # modes of the model's own making are not guessed
        return LocalRows()

    def _replicated(self, sink: Sink, local: LocalRows) -> Iterator[Fault]:
        """Complete values in a sum that is completed after they were added."""
        logic = self.logic
        gathered = logic.negation(local.sparse) if local.sparse is not None else TRUE
        for part in sink.parts:
            place = self.machine.addends.get(part.origin)
            if place is not None:
                fused = part.origin in self.machine.fused
                # where tokens are moved to the experts, each rank's copy has tokens of its own
                plain = logic.both(logic.atom(SIZE_OF["EP"]), logic.atom(ATOMS.no_dispatch))
                split = plain if fused else TRUE
                there = logic.all_of(sink.when, gathered, part.present, split)
                cause: Cause = "fused" if fused else "gathered"
                for by, sums in ((None, sink.sums), *part.reduced.items()):
                    if by is None or "EP" in by.axes or not fused:
                        when, at = logic.both(there, sums), (place,)
                        yield from self._fault("replicated", cause, at, sink, when, summed=by)
            elif part.origin in self.machine.whole - self.machine.inside_block:
                # a dense MLP that every rank holds, on rows that all ranks have, beside other
                # layers' experts
                dense = logic.all_of(sink.when, gathered, logic.negation(self.routed_in(sink)))
                when = logic.all_of(dense, part.present, sink.sums)
                for name in filter(_OWN_ROWS.search, logic.support(when)):
                    when = logic.assume(when, name, value=False)
                if any("layer" in name for name in logic.support(when)):
                    yield from self._fault("replicated", "gathered", (part.place,), sink, when)

    def _sharded(self, sink: Sink, local: LocalRows) -> Iterator[Fault]:
        """Slices of a sharded layer on rows that only this rank has."""
        logic = self.logic
        routed = self.routed_in(sink)
        if self.routed == FALSE:
            return
        # the routed experts' own reductions are another rule's business
        shared_places = {p for part in sink.parts if "EP" in part.axes for p in part.reduced}
        stays = self._stays()
        # one layer may be called on several paths: what holds on one of them needs no condition
        found: dict[tuple[Kind, Cause, tuple[Place, ...]], Cond] = {}
        for part in sink.parts:
            if part.axes != ("TP",):
                continue
            places = self.machine.built.get(part.origin, (part.place,))
            there = logic.all_of(sink.when, part.present, stays)
            done = logic.any_of(*part.reduced.values())
            alone = logic.any_of(
                *(cond for place, cond in part.reduced.items() if place not in shared_places)
            )
            for cause, when in self._cases(
                local, routed, own=part.origin not in self.machine.inside_block
            ):
                lost = logic.all_of(there, when, logic.negation(done))
                mixed = logic.all_of(there, when, alone)
                kinds: tuple[tuple[Kind, Cond], ...] = (("lost", lost), ("mixed", mixed))
                for kind, cond in kinds:
                    key = (kind, cause, places)
                    found[key] = logic.either(found.get(key, FALSE), cond)
        for (kind, cause, places), cond in found.items():
            yield from self._fault(kind, cause, places, sink, cond)

    def _stays(self) -> Cond:
        """Where nothing is fused or reduce-scattered later, which was gathered then."""
        fuses, scatters = (self.logic.atom(name) for name in (ROLES.fuses, ROLES.scatters))
        return self.logic.negation(self.logic.either(fuses, scatters))

    def _cases(self, local: LocalRows, routed: Cond, *, own: bool) -> Iterator[tuple[Cause, Cond]]:
        """Why rows may be local: beside routed experts, or, for an MLP of its own, a dense one."""
        logic = self.logic
        none, own_work = logic.atom(ATOMS.no_dispatch), logic.negation(logic.atom(ATOMS.local_work))
        plain = logic.both(none, own_work)
        if local.sparse is not None:
            # a dispatcher that moves tokens to their experts is expert parallelism
            shared = logic.all_of(local.sparse, routed, logic.atom(SIZE_OF["EP"]))
            yield "dispatched", logic.all_of(shared, plain, logic.atom(ROLES.combines))
            # the FP4 all-gather is a step of the plain dispatcher
            other = logic.negation(logic.either(none, logic.atom(ROLES.combines)))
            yield "backend", logic.all_of(shared, other, own_work)
            neither = logic.both(none, logic.negation(logic.atom(ROLES.combines)))
            yield "local-work", logic.all_of(shared, neither, logic.atom(ATOMS.local_work))
        if local.dense is not None and own:
            yield "dense", logic.all_of(local.dense, logic.negation(routed), plain)

    def _fault(
        self,
        kind: Kind,
        cause: Cause,
        places: tuple[Place, ...],
        sink: Sink,
        when: Cond,
        *,
        asked: tuple[str, ...] = (),
        summed: Place | None = None,
    ) -> Iterator[Fault]:
        """The fault, where some configuration reaches it; `asked` is asked of the environment."""
        logic = self.logic
        when = with_tokens(logic, when)
        told = {n for n in logic.support(when) if _RANK.search(n)}
        # what the theory says nothing about is free: it need not be carried along
        seen = self._on_every_rank(logic.shadow(when, self.known | told))
        reach = logic.all_of(seen, self.theory, logic.atom(WIDE))
        backends: tuple[str, ...] = ()
        if cause in OF_BACKEND and reach != FALSE:
            backends = tuple(
                name
                for name in self.backends
                if not logic.implies(reach, logic.negation(logic.atom(self._atom(name))))
            )
            named = logic.any_of(*(logic.atom(self._atom(name)) for name in backends))
            reach = logic.both(reach, named)
        if reach == FALSE:
            return
        conditions = self._conditions(when, reach)
        environment, asks = (
            tuple(n for n in conditions if said.fullmatch(n) and self._always(n, when, reach))
            for said in (READS, _ASKS)
        )
        if self._own_rows(when, reach):
            asks = (*asks, OWN_ROWS)
        yield Fault(
            kind=kind,
            cause=cause,
            places=places,
            consumer=sink.consumer,
            rows=logic.table(reach, FLAGS),
            backends=backends,
            conditions=conditions,
            environment=(*environment, *asked, *self._environment(when, reach, places)),
            asks=asks,
            # where a kernel declines, it is the rule that asks for one, and not the source
            platforms=self._platforms(when, reach) if cause != "declined" else (),
            meant=cause != "dense" or self._beside(sink, places),
            summed=summed,
            completed=summed or completed_at(self.machine, sink, when),
        )

    def _platforms(self, when: Cond, reach: Cond) -> tuple[str, ...]:
        """The kinds of device that every case needs."""
        names = self.logic.support(when)
        needed = {kind for n in names for kind in PLATFORMS(n) if self._always(n, when, reach)}
        return tuple(sorted(needed))

    def _environment(self, when: Cond, reach: Cond, places: tuple[Place, ...]) -> tuple[str, ...]:
        """What the environment is asked for by a file's own names that hold in every case."""
        module = self.machine.state.index.module(places[-1].file)
        asked = _asks_environment(module.text) if module else {}
        names = asked.keys() & set(self.logic.support(when))
        held = (name for name in sorted(names) if self._always(name, when, reach))
        return tuple(read for name in held for read in asked[name])

    def _beside(self, sink: Sink, places: tuple[Place, ...]) -> bool:
        """Whether one model has this dense MLP and routed experts, in one layer or by layer."""
        logic = self.logic
        there = logic.any_of(
            *(p.present for p in sink.parts if self.machine.built.get(p.origin) == places)
        )
        apart = not any("EP" in part.axes for part in sink.parts)
        if apart and logic.both(there, self.routed) != FALSE:
            return True
        return any(
            "layer" in name
            for name in logic.support(there)
            if logic.implies(there, logic.atom(name))
            or logic.implies(there, logic.negation(logic.atom(name)))
        )

    def _conditions(self, when: Cond, reach: Cond) -> tuple[str, ...]:
        """What the case needs besides flags, sizes and backends, in its smallest row."""
        logic = self.logic
        bits = tuple(zip(FLAGS, smallest_row(logic.table(reach, FLAGS)), strict=True))
        one = logic.both(reach, logic.row([(flag, bit == "1") for flag, bit in bits]))
        values = logic.witness(one)
        rest = logic.fix(when, values)
        found = []
        for name, value in (*values, *logic.witness(rest)):
            if name in FLAGS or _SIZE.search(name) or name.startswith(BACKEND):
                continue
            atom = logic.atom(name) if value else logic.negation(logic.atom(name))
            case = one if (name, value) in values else rest
            if logic.implies(case, atom) and (case == rest or name not in self.known):
                found.append(name if value else f"not {name}")
        return tuple(found)

    def _always(self, condition: str, when: Cond, reach: Cond) -> bool:
        """Whether a condition holds in every case of the smallest row, its sizes and backends."""
        logic = self.logic
        bits = tuple(zip(FLAGS, smallest_row(logic.table(reach, FLAGS)), strict=True))
        row = [(flag, bit == "1") for flag, bit in bits]
        launched = [
            (name, value)
            for name, value in logic.witness(logic.both(reach, logic.row(row)))
            if name in FLAGS or _SIZE.search(name) or name.startswith(BACKEND)
        ]
        name = condition.removeprefix("not ")
        atom = logic.atom(name)
        wanted = atom if name == condition else logic.negation(atom)
        return logic.implies(logic.fix(when, launched), wanted)

    def _own_rows(self, when: Cond, reach: Cond) -> bool:
        """Whether every case of the smallest row has ranks with rows of their own."""
        logic = self.logic
        bits = zip(FLAGS, smallest_row(logic.table(reach, FLAGS)), strict=True)
        case = logic.fix(when, [(flag, bit == "1") for flag, bit in bits])
        return logic.implies(case, logic.atom(OWN_ROWS))

    def _on_every_rank(self, when: Cond) -> Cond:
        """The condition where it holds on every rank: what one rank alone adds counts once."""
        for name in self.logic.support(when):
            if _RANK.search(name):
                fixed = (self.logic.assume(when, name, value=value) for value in (False, True))
                when = self.logic.all_of(*fixed)
        return when


@lru_cache(maxsize=100)
def _asks_environment(text: str) -> dict[str, list[str]]:
    """By a file's own names: what each asks of the environment."""
    found = {name: [m[0] for m in READS.finditer(value)] for name, value in _NAMED.findall(text)}
    return {name: reads for name, reads in found.items() if reads}


def known_backends(index: Index) -> tuple[str, ...]:
    """The all-to-all backends that this source's experts ask about, by name.

    Which of them a model asks about says nothing: the one that it does not ask about is the one
    that it gets wrong. Where no experts ask about any, they are all that there are.
    """
    return _backends(index, re.compile(r"(?!)"))


def moving_backends(index: Index) -> tuple[str, ...]:
    """Those of them with which the experts do not move tokens as they do without any."""
    return _backends(index, _AS_NONE)


def taken_for_none(index: Index, backend: str) -> Place | None:
    """Where the experts' code asks for a backend together with none: it gets no dispatcher."""
    for module in _experts(index):
        for name, piece in module.pieces.items():
            for asked in _AS_NONE.finditer(piece.text):
                said = re.search(rf"\bis_{backend}\(", asked[0])
                if said:
                    before = piece.text[: asked.start() + said.start()]
                    line = piece.line + before.count("\n")
                    return Place(
                        file=module.path,
                        line=line,
                        column=0,
                        cls=None,
                        method=name,
                        collective=backend,
                        axes=("EP",),
                    )
    return None


@lru_cache(maxsize=2)
def _backends(index: Index, unless: re.Pattern[str]) -> tuple[str, ...]:
    """The backends that experts ask about elsewhere than in `unless`."""
    module = index.module(ENGINE.files.shared)
    cls = module.lookup(ENGINE.structure.dispatcher) if module else None
    if not isinstance(cls, Class):
        return ()
    named = tuple(name for name in _MEMBER.findall(cls.text) if name != "none")
    asked = {
        name for module in _experts(index) for name in _MOVES.findall(unless.sub("", module.text))
    }
    return tuple(name for name in named if name in asked) or named


def _experts(index: Index) -> Iterator[Module]:
    """The files of the experts' layers and of their dispatchers."""
    for path in index.tree.under(f"{ENGINE.library.layers}moe/"):
        module = index.module(path)
        if module and (path.startswith(ENGINE.files.dispatchers) or _EXPERTS.search(module.text)):
            yield module
