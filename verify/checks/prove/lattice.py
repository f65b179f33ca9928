"""Every subject in every legal deployment, without doing anything twice.

Three factors make the lattice small. Which steps a layer takes depends on a configuration only
through a few yes-or-no facts (`Features`); subjects with equal guards are one; and programs that
begin alike share the states they pass through.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from typing import NamedTuple

from helper import MoeConfig
from helper.predicates import uses_flashinfer_fp4_allgather
from verify.checks.prove.judge import Kind, classify
from verify.checks.prove.subject import Subject
from verify.engines.ledger import LayerTraits, Plan, Release, Step
from verify.engines.sources import ledger
from verify.parallel.counts import Family, ImpossibleError, State
from verify.parallel.deployment import Deployment, layers, layouts, with_backends, with_transport
from verify.parallel.guards import Guards
from verify.parallel.scene import Scene
from verify.report.ending import end_children, end_with_parent, starting_children
from verify.report.progress import track

LEDGER = ledger()


class Features(NamedTuple):
    """All that the plan, the sites and `deployment.layers` ask of a configuration."""

    several_ranks: bool
    six_ranks: bool
    ep: bool
    moe_tp: bool
    moe_dp: bool
    attention_dp: bool
    attention_tp: bool
    cp: bool
    shares_tokens_across_cp: bool
    all_to_all: bool
    sums_by_scatterv: bool
    fp4_allgather: bool

    @classmethod
    def of(cls, config: MoeConfig, release: Release) -> "Features":
        """The features of `config` on a server of `release`."""
        return cls(
            several_ranks=config.tp_size > 1,
            six_ranks=config.tp_size == 6,
            ep=config.ep_size > 1,
            moe_tp=config.moe_tp_size > 1,
            moe_dp=config.moe_dp_size > 1,
            attention_dp=config.attn_dp_size > 1,
            attention_tp=config.attn_tp_size > 1,
            cp=config.attn_cp_size > 1,
            shares_tokens_across_cp=config.attn_cp_size > config.moe_dp_size,
            all_to_all=config.moe_a2a_backend != "none",
            sums_by_scatterv=release.sums_by_scatterv(config),
            fp4_allgather=uses_flashinfer_fp4_allgather(config),
        )


class SceneKey(NamedTuple):
    """What tells the scenes of one configuration apart."""

    mode: str
    tokens: str
    extend: bool


class Case(NamedTuple):
    """One program, for all guards and layers that come down to it.

    `example` is the simplest such layer, `weight` how many layers there are, `guards` whose.
    """

    scene: SceneKey
    program: tuple[str, ...]
    plan: Plan
    example: Deployment
    weight: int
    guards: tuple[int, ...]


class _Way(NamedTuple):
    """What layers of one configuration must share to be one case."""

    scene: SceneKey
    program: tuple[str, ...]
    row: int
    reader: str


class Cause(NamedTuple):
    """What makes verdicts the same mistake: who failed to complete which sum, and how."""

    kind: Kind
    family: Family
    reader: str
    sites: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A mistake in the smallest deployment that shows it; `weight` deployments show it."""

    cause: Cause
    guards: Guards
    example: Deployment
    weight: int


@dataclass(kw_only=True)
class Tally:
    """How often each kind of verdict fell, by guards and row, and the faults.

    `deployments` are those that some subject can be in, `cases` those of each subject together.
    """

    deployments: int = 0
    cases: int = 0
    programs: int = 0
    kinds: dict[tuple[Guards, int], Counter[Kind]] = field(default_factory=dict)
    faults: dict[tuple[Cause, Guards], Fault] = field(default_factory=dict)


def prove(
    subjects: Sequence[Subject],
    *,
    max_world_size: int,
    release: Release = LEDGER.release,
    steps: Mapping[str, Step] = LEDGER.steps,
    workers: int = 1,
) -> Tally:
    """Judge every subject in every legal deployment of at most `max_world_size` ranks.

    The tally does not depend on `workers`, the number of processes.
    """
    sizes = range(1, max_world_size + 1)
    if workers == 1:
        _start(subjects, release, steps)
        tallies = [_prove_size(size) for size in track(sizes, what="world sizes proved")]
    else:
        # the largest first: they take longest
        with ProcessPoolExecutor(
            workers, get_context("spawn"), _start_worker, (subjects, release, steps)
        ) as pool:
            try:
                # it starts the workers
                with starting_children():
                    largest_first = pool.map(_prove_size, reversed(sizes))
                tallies = list(track(largest_first, what="world sizes proved", total=len(sizes)))
            except KeyboardInterrupt:
                end_children()
                raise
        tallies.reverse()
    return together(tallies)


_SWEEPS: list["_Sweep"] = []
"""The sweep that this process is at."""


def _start_worker(subjects: Sequence[Subject], release: Release, steps: Mapping[str, Step]) -> None:
    # a worker holds both ends of its queue: it would never see that there is nobody left
    end_with_parent()
    _start(subjects, release, steps)


def _start(subjects: Sequence[Subject], release: Release, steps: Mapping[str, Step]) -> None:
    _SWEEPS[:] = [
        _Sweep(
            guards=tuple(dict.fromkeys(subject.guards for subject in subjects)),
            bearers=Counter(subject.guards for subject in subjects),
            release=release,
            steps=steps,
        )
    ]


def _prove_size(world_size: int) -> Tally:
    sweep = _SWEEPS[0]
    sweep.tally = Tally()
    for sizes in layouts(world_size):
        # a step looks at ranks and tokens: whatever the backends are called
        memos: dict[SceneKey, Memo] = {}
        for config, stands_for in with_backends(sizes):
            if sweep.release.takes(config):
                sweep.judge(config, stands_for, memos)
    return sweep.tally


def together(tallies: Iterable[Tally]) -> Tally:
    """The sum of tallies; a fault keeps the example of the first that has it."""
    total = Tally()
    for tally in tallies:
        total.deployments += tally.deployments
        total.cases += tally.cases
        total.programs += tally.programs
        for key, kinds in tally.kinds.items():
            total.kinds.setdefault(key, Counter()).update(kinds)
        for cause, fault in tally.faults.items():
            known = total.faults.get(cause)
            total.faults[cause] = (
                replace(known, weight=known.weight + fault.weight) if known else fault
            )
    return total


def configurations(world_size: int) -> Iterator[tuple[MoeConfig, int]]:
    """Every configuration of `world_size` ranks, and how many sets of backend names it is for."""
    for sizes in layouts(world_size):
        yield from with_backends(sizes)


@dataclass(kw_only=True)
class _Sweep:
    """The subjects, what is known of them so far, and the programs known by features."""

    guards: tuple[Guards, ...]
    bearers: Mapping[Guards, int]
    release: Release
    steps: Mapping[str, Step]
    by_features: dict[Features, tuple[tuple[Case, ...], int, int]] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)

    def judge(self, config: MoeConfig, stands_for: int, memos: dict[SceneKey, "Memo"]) -> None:
        """Judge every layer of `config`, which stands for so many configurations.

        `memos` are those of its sizes.
        """
        features = Features.of(config, self.release)
        if features not in self.by_features:
            self.by_features[features] = self._cases(config)
        cases, layer_count, programs = self.by_features[features]
        self.tally.deployments += layer_count * stands_for
        self.tally.programs += programs
        for case in cases:
            memo = memos.get(case.scene)
            if memo is None:
                deployment = replace(case.example, config=config)
                scene = Scene(deployment=deployment, mode=case.plan.mode)
                memo = memos[case.scene] = Memo(scene, self.steps)
            kind, family = memo.verdict(case.program)
            for index in case.guards:
                self._count(case, self.guards[index], kind, case.weight * stands_for)
                if kind != "exact":
                    self._blame(case, self.guards[index], (kind, family), config, stands_for)

    def _cases(self, config: MoeConfig) -> tuple[tuple[Case, ...], int, int]:
        """The programs of all layers of `config` for all guards; how many layers and programs."""
        traits = [LayerTraits.of(each) for each in self.guards]
        found: dict[_Way, dict[int, list[tuple[Deployment, Plan]]]] = {}
        layer_count = 0
        for deployment in layers(config, fusions=self.release.fusions(config)):
            concerned = [
                index for index, each in enumerate(self.guards) if LEDGER.applies(deployment, each)
            ]
            layer_count += bool(concerned)
            plans = {each: LEDGER.plan(deployment, each, self.release) for each in set(traits)}
            tokens = Scene.token_kind(deployment)
            for index in concerned:
                each, layer = self.guards[index], plans[traits[index]]
                scene = SceneKey(layer.mode, tokens, deployment.context_parallel_extend)
                program = layer.steps(LEDGER.sites(deployment, each, layer.row))
                way = _Way(scene, program, layer.row, layer.reader)
                found.setdefault(way, {}).setdefault(index, []).append((deployment, layer))
        cases = []
        for way, takers in found.items():
            # guards with as many layers behind them, from the same one on, are one case
            alike: dict[tuple[tuple[Deployment, Plan], int], list[int]] = {}
            for index, taken in takers.items():
                alike.setdefault((taken[0], len(taken)), []).append(index)
            for ((example, layer), weight), members in alike.items():
                cases.append(Case(way.scene, way.program, layer, example, weight, tuple(members)))
        return tuple(cases), layer_count, len({(way.scene, way.program) for way in found})

    def _count(self, case: Case, guards: Guards, kind: Kind, weight: int) -> None:
        self.tally.cases += weight * self.bearers[guards]
        self.tally.kinds.setdefault((guards, case.plan.row), Counter())[kind] += weight

    def _blame(
        self,
        case: Case,
        guards: Guards,
        verdict: tuple[Kind, Family],
        config: MoeConfig,
        stands_for: int,
    ) -> None:
        own = case.program[len(case.plan.before) : -len(case.plan.last + case.plan.after)]
        cause = Cause(*verdict, case.plan.reader, own, case.plan.before, case.plan.after)
        weight = case.weight * stands_for
        if own and guards.reached_by and config.moe_a2a_backend != "none":
            # the class's first backend may be one that the block knows
            config = with_transport(config, guards.reached_by[0])
        known = self.tally.faults.get((cause, guards))
        self.tally.faults[cause, guards] = (
            replace(known, weight=known.weight + weight)
            if known
            else Fault(
                cause=cause,
                guards=guards,
                example=replace(case.example, config=config),
                weight=weight,
            )
        )


class Memo:
    """States that programs of one scene pass through, each computed once."""

    def __init__(self, scene: Scene, steps: Mapping[str, Step]) -> None:
        self.scene = scene
        self.steps = steps
        self.states: dict[tuple[str, ...], State | None] = {(): scene.mlp_input}
        self.verdicts: dict[tuple[str, ...], tuple[Kind, Family]] = {}

    def verdict(self, program: tuple[str, ...]) -> tuple[Kind, Family]:
        """What is wrong after `program`, and with which family of partials."""
        if program not in self.verdicts:
            state = self._after(program)
            self.verdicts[program] = (
                ("crash", "routed") if state is None else classify(self.scene, state)
            )
        return self.verdicts[program]

    def _after(self, program: tuple[str, ...]) -> State | None:
        """None where some step is impossible."""
        if program not in self.states:
            before = self._after(program[:-1])
            try:
                after = None if before is None else self.steps[program[-1]](self.scene, before)
            except ImpossibleError:
                after = None
            self.states[program] = after
        return self.states[program]
