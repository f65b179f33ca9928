"""The launch that shows a finding: the smallest that the source takes for a model that has it.

What stands here is which options make rows local, split experts over two groups, and so on. Which
models and backends take them is read from the source.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product

from verify.checks.scan.addends.findings import Asked, supported
from verify.checks.scan.addends.judge import OF_BACKEND
from verify.checks.scan.counted import Steps, counted, of_sum
from verify.checks.scan.findings import as_written
from verify.checks.scan.judge import OWN_ROWS, Fault
from verify.checks.scan.pipeline import RULE as PIPELINE
from verify.checks.scan.roots import Roots
from verify.checks.scan.server.arguments import Arguments, Options, Outcome, Refusal
from verify.checks.scan.server.beside import built_surely
from verify.checks.scan.server.construct import Constructors, sizes
from verify.checks.scan.server.embedding import whole_vocabulary
from verify.checks.scan.server.experts import Experts
from verify.checks.scan.server.idle import Idle
from verify.checks.scan.server.launched import (
    Judged,
    Launch,
    Launched,
    plain_reach,
    size_of,
    words_of,
)
from verify.checks.scan.server.loader import refuses_checkpoint
from verify.checks.scan.server.models import Model, models_of
from verify.checks.scan.server.platforms import platform_of
from verify.checks.scan.server.runners import Runners
from verify.checks.scan.server.settings import modules_of, sayable, set_besides, unmet, ways
from verify.checks.scan.server.stated import Stated
from verify.checks.scan.server.values import Unknown
from verify.engines.sources import reading
from verify.interpreter.index import Class, Index
from verify.report.report import Finding

ENGINE = reading()
FLAGS, KNOWN = ENGINE.flags, ENGINE.launches
# what is said of a sum behind a dispatcher's combine holds where the layer comes to it at all
WORKS = "a model that works with this all-to-all backend: nobody has looked"
FUSES_ELSEWHERE = ("hardware that this option's fused kernels run on",)
BACKEND = "moe_a2a_backend"
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Conditions:
    """What must hold under a launch; `files` say what the texts' names mean."""

    texts: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


NO_CONDITIONS = Conditions()


@dataclass(eq=False)
class Launcher:
    """Asks the source which launches it takes; each question is answered once."""

    index: Index
    roots: Roots
    arguments: Arguments = field(init=False)
    constructors: Constructors = field(init=False)
    idle: Idle = field(init=False)
    runners: Runners = field(init=False)
    experts: Experts = field(init=False)
    stated: Stated = field(init=False)
    _outcomes: dict[tuple[object, ...], Outcome] = field(default_factory=dict)
    _models: dict[Class, tuple[Model, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.arguments = Arguments(self.index)
        self.constructors = Constructors(self.index)
        self.idle = Idle(self.index)
        self.runners = Runners(self.index)
        self.experts = Experts(self.index)
        self.stated = Stated(self.index, self.arguments.defaults)

    def prepare(self) -> None:
        """Read what every launch has in common."""
        self._outcome(Model(), KNOWN.plain)

    def judged(self, one: Asked) -> Judged | None:
        """Which launches show a cause in a layer; None where that was not worked out.

        What its conditions ask the server for is set.
        """
        found = Judged()
        if self.arguments.server is None:
            return None
        layer = one.layer
        conditions = Conditions(one.asks, one.files)
        if one.cause not in OF_BACKEND:
            leading, needs = KNOWN.by_cause.get(one.cause, ()), tuple[str, ...]()
            if one.cause == "gathered":
                leading, needs = self._leading(one.row, one.asks)
            known = self.arguments.defaults.keys()
            leading = tuple(options for options in leading if options.keys() <= known)
            if not leading:
                return None
            launch = self._first(layer, leading, found, conditions)
            found.launch = launch and replace(launch, needs=(*needs, *launch.needs))
            return found
        taken: list[tuple[int, bool, Launch]] = []
        for backend in one.backends:
            offered = self._with_others(_with_backend(backend))
            launch = self._first(layer, offered, found, conditions)
            if launch is not None:
                launch = self._run(layer, backend, launch, one.files)
                found.backends.add(backend)
                taken.append((len(launch.needs), not self.runners.known(backend), launch))
        # whose experts are known to run comes before what takes fewer options
        if taken:
            launch = min(taken, key=lambda it: (*it[:2], size_of(it[2])))[2]
            found.launch = self._sized(layer, launch, found)
        return found

    def _with_others(self, launches: Iterable[Options]) -> Iterator[Options]:
        """Launches, each followed by those that the experts' layer needs where it ends that one."""
        for options in launches:
            yield options
            for other in self.experts.others({**self.arguments.defaults, **options}):
                yield {**options, **other}

    def _run(self, layer: Class, backend: str, launch: Launch, files: Iterable[str]) -> Launch:
        """The launch with what runs the experts, and what a machine or a checkpoint must have."""
        platform = platform_of(self.index, backend)
        if platform:
            # what runs them there is the platform's own
            return replace(launch, needs=(*launch.needs, platform))
        needed = self.runners.instead(backend, launch.options)
        if needed is None:
            return self._as_they_are(backend, launch)
        needed = self.runners.fit(needed, {*files, *(one.module.path for one in layer.ancestors)})
        asked = (
            {**launch.options, KNOWN.behind.option: runner}
            for runner in KNOWN.runners
            if runner in needed and self.runners.runs(runner)
        )
        better = self._first(layer, tuple(asked), Judged())
        if better is not None:
            return self._as_they_are(backend, replace(better, needs=launch.needs))
        return replace(launch, needs=(*launch.needs, self._quantised(needed)))

    def _as_they_are(self, backend: str, launch: Launch) -> Launch:
        """A launch of experts without quantisation, with what they need if they do not run so."""
        settled = self._outcome(Model(), launch.options).options
        ends = self.experts.unquantised(
            settled, self.runners.got(settled), self.runners.handed(backend)
        )
        if ends is None:
            return launch
        need = (
            f"experts that are quantised: the forward of others ends at {ENGINE.local(str(ends))}"
        )
        return replace(launch, needs=(*launch.needs, need))

    def _quantised(self, runners: Sequence[str]) -> str:
        return (
            f"experts quantised so that {' or '.join(runners)} runs them: "
            f"the forward of others ends at {ENGINE.local(self.runners.ends)}"
        )

    def shown(self, finding: Finding, layers: Sequence[Class], steps: Steps | None) -> Finding:
        """A finding about a row of flags with the launch that leads there.

        One that no layer takes is a finding still: another launch may lead there.
        """
        launches, needs = self._leading(finding.row or "", finding.conditions)
        if finding.rule == PIPELINE:
            launches = KNOWN.stages
        known = self.arguments.defaults.keys()
        launches = tuple(options for options in launches if options.keys() <= known)
        if self.arguments.server is None:
            return finding
        conditions = Conditions(finding.conditions, (finding.file,) if finding.file else ())
        taken = [
            launch
            for layer in layers
            for options in launches
            for launch in (self._first(layer, (options,), Judged(), conditions),)
            if launch is not None
        ]
        told = [
            counted(
                replace(
                    finding,
                    launch=launch.words,
                    needs=(*finding.needs, *needs, *launch.needs),
                    reach=(
                        "conditional"
                        if finding.needs or needs or launch.needs
                        else plain_reach(launch.options)
                    ),
                ),
                steps,
                launch.options,
                launch.sizes,
            )
            for launch in taken
        ]
        # the first of which the counts show it
        return next((one for one in told if one.counts), (*told, finding)[0])

    def _leading(
        self, row: str, conditions: Sequence[str]
    ) -> tuple[tuple[Options, ...], tuple[str, ...]]:
        """The launches that lead to a row of flags, and what it needs besides."""
        bits = dict(zip(FLAGS, row, strict=False))
        flag = next((name for name in KNOWN.by_flag if bits.get(name) == "1"), None)
        own_rows = KNOWN.attention_dp if OWN_ROWS in conditions else KNOWN.plain
        launches = KNOWN.by_flag[flag] if flag else (own_rows,)
        needs = KNOWN.needs.get(flag or "", ())
        fuses = ENGINE.roles.fuses
        if flag not in (None, fuses) and bits.get(fuses) == "1":
            fusing = self._set_by(conditions)
            launches = tuple({**fusing, **options} for options in launches)
            usual = any(fusing.keys() <= options.keys() for options in KNOWN.by_flag[fuses])
            needs = KNOWN.needs.get(fuses, ()) if usual else FUSES_ELSEWHERE
        return launches, needs

    def _set_by(self, conditions: Iterable[str]) -> Options:
        """The server's options that conditions name and that are off unless they are given."""
        words = {word for text in conditions for word in _WORD.findall(text)}
        return {word: True for word in sorted(words) if self.arguments.defaults.get(word) is False}

    @staticmethod
    def asks(finding: Finding, layers: Sequence[Class], fault: Fault) -> Iterator[Asked]:
        """What `judged` is to say about a finding about all-to-all backends; nothing for others."""
        files = (finding.file,) if finding.file else ()
        for layer in layers if fault.backends else ():
            backends = tuple(sorted(supported(layer, fault.backends)))
            yield Asked(layer, "backend", "", backends, finding.conditions, files)

    def combined(
        self,
        finding: Finding,
        layers: Sequence[Class],
        fault: Fault,
        answers: Mapping[Asked, Judged | None],
    ) -> Finding:
        """A finding about all-to-all backends, with the first that is taken, or the refusals.

        Without either it is none: nobody starts a server with such a backend. `answers` are those
        to what it `asks`.
        """
        if self.arguments.server is None:
            return finding
        launched = Launched("backend")
        for ask in self.asks(finding, layers, fault):
            launched.heard(ask.layer.name, answers[ask], ask.backends)
        told = launched.told(finding)
        if launched.launch is None:
            return told
        told = counted(told, of_sum(fault), launched.launch.options, launched.launch.sizes)
        return replace(told, needs=(*told.needs, WORKS), reach="conditional")

    def _first(
        self,
        layer: Class,
        launches: Iterable[Options],
        found: Judged,
        conditions: Conditions = NO_CONDITIONS,
    ) -> Launch | None:
        """The first launch that some model of the layer takes, and in which conditions hold.

        Where nobody knows what to set for one, it is what the launch needs.
        """
        if layer not in self._models:
            self._models[layer] = models_of(self.index, self.roots, layer)
        models = self._models[layer]
        besides = ways(layer, conditions.files, conditions.texts, self.arguments.defaults)
        needing: Launch | None = None
        # launches are made as they are asked for
        for one, (way, model) in (
            (one, rest) for one in launches for rest in product(besides, models or (Model(),))
        ):
            options = set_besides(one, way)
            refusal = self._refusal(layer, model, options)
            needs: tuple[str, ...] = ()
            if refusal is None:
                refusal, needs = self._denied(layer, conditions, model, options, one.keys())
            more = {} if refusal else self._stated_by(layer, conditions, model, options)
            if more:
                options = {**options, **more}
                refusal = self._refusal(layer, model, options)
            if refusal is not None:
                found.note(refusal, " ".join(words_of(options)))
                continue
            settled = sizes(self._outcome(model, options).options)
            known = {k: v for k, v in settled.items() if isinstance(v, int)}
            launch = Launch(options=options, sizes=known, needs=needs)
            if not needs:
                return launch
            needing = needing or launch
        return needing

    def _sized(self, layer: Class, launch: Launch, found: Judged) -> Launch:
        """A launch with the sizes that the server takes, where it does not take its own."""
        options = launch.options
        models = self._models[layer] or (Model(),)
        model = next(one for one in models if self._refusal(layer, one, options) is None)
        settled = self._outcome(model, options).options
        for name, values in self.arguments.by_machine.items():
            if not isinstance(settled.get(name), Unknown):
                continue
            own = ({**options, name: size} for size in values)
            refusals = (self._outcome(model, one).refused for one in own)
            first = next(refusals, None)
            if first is None or None in refusals:
                continue
            smaller = (values[0] >> power for power in range(1, values[0].bit_length()))
            for one in ({**options, name: size} for size in smaller):
                if self._outcome(model, one).refused is None:
                    found.note(str(first), " ".join(words_of(options)))
                    return replace(launch, options=one)
        return launch

    def _refusal(self, layer: Class, model: Model, options: Options) -> str | None:
        """Why a model does not start so, None if it does as far as the source tells."""
        outcome = self._outcome(model, options)
        if outcome.refused is not None:
            # what ends every launch was misread
            plain = self._outcome(model, KNOWN.plain).refused
            return None if outcome.refused == plain else str(outcome.refused)
        for name, value in options.items():
            settled = outcome.options.get(name, value)
            # of a size, each rank gets its share
            moved = name in KNOWN.moved or name in self.arguments.by_machine
            if not moved and not isinstance(settled, Unknown) and settled != value:
                return outcome.places.get(name, name)
        built = self.constructors.ends(layer, outcome.options)
        if built is not None and self.constructors.ends(layer, self._plain) is not None:
            # what ends every launch was misread
            built = None
        if built is None and model.cls is not None:
            built = self._beside(model.cls, layer, outcome.options)
        if built is None:
            built = self.idle.nothing_to_act_on(layer, options, self.arguments.defaults)
        if built is None:
            built = refuses_checkpoint(model.cls, options)
        attention = sizes(outcome.options)["attn_dp_size"]
        if built is None and isinstance(attention, int) and attention > 1:
            built = whole_vocabulary(self.roots, layer)
        if built is None and BACKEND in options and not platform_of(self.index, options[BACKEND]):
            built = self.experts.ends(outcome.options)
        return None if built is None else str(built)

    def _denied(
        self,
        layer: Class,
        conditions: Conditions,
        model: Model,
        options: Options,
        fixed: Collection[str],
    ) -> tuple[str | None, tuple[str, ...]]:
        """Where the server sets what a condition says is not set, or what is needed besides.

        A checkpoint or another value may bring what is not `fixed`, where no option is known to.
        """
        outcome, given = self._outcome(model, options), {**self.arguments.defaults, **options}
        settled, needs = {**given, **outcome.options}, []
        for text, names in unmet(layer, conditions.files, conditions.texts, settled):
            moved = sorted(name for name in names if settled[name] != given[name])
            said = sayable(layer, conditions.files, text, self.arguments.defaults)
            if moved or said or not names.isdisjoint(fixed):
                name = (moved or sorted(names))[0]
                return outcome.places.get(name, name), ()
            needs.append(as_written(text))
        return None, tuple(needs)

    def _stated_by(
        self, layer: Class, conditions: Conditions, model: Model, options: Options
    ) -> Options:
        """What must be set besides for the conditions to hold for a model."""
        modules = modules_of(layer, conditions.files)
        settled = self._outcome(model, options).options
        return self.stated.needs(model.cls, modules, conditions.texts, settled)

    def _beside(self, model: Class, layer: Class, options: Options) -> Refusal | None:
        """Where another layer that the model surely has ends the launch."""
        kinds = built_surely(self.index, model)
        for other in sorted(kinds - {layer}, key=lambda one: one.line) if layer in kinds else ():
            ending = self.constructors.ends(other, options)
            if ending is not None and self.constructors.ends(other, self._plain) is None:
                return ending
        return None

    @cached_property
    def _plain(self) -> Options:
        return {**self.arguments.defaults, **KNOWN.plain}

    def _outcome(self, model: Model, options: Options) -> Outcome:
        """What the argument handling makes of a launch."""
        key = (self.arguments.told_apart(model), frozenset(options.items()))
        if key not in self._outcomes:
            self._outcomes[key] = self.arguments.follow(options, model)
        return self._outcomes[key]


def _with_backend(backend: str) -> Iterator[Options]:
    """Launches with an all-to-all backend, the smallest first."""
    for options in (KNOWN.plain, KNOWN.attention_dp):
        yield {**options, BACKEND: backend}
    for runner in KNOWN.runners:
        yield {**KNOWN.attention_dp, BACKEND: backend, "moe_runner_backend": runner}
