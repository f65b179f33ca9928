"""The launch that shows a finding: the smallest that the source takes for a model that has it.

What stands here is which options make rows local, split experts over two groups, and so on. Which
models and backends take them is read from the source.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from verify.checks.scan.addends.findings import Asked, supported
from verify.checks.scan.addends.judge import OF_BACKEND
from verify.checks.scan.counted import Steps, counted, of_sum
from verify.checks.scan.judge import OWN_ROWS, Fault
from verify.checks.scan.pipeline import RULE as PIPELINE
from verify.checks.scan.roots import Roots
from verify.checks.scan.server.arguments import Arguments, Options, Outcome, Refusal
from verify.checks.scan.server.beside import built_surely
from verify.checks.scan.server.construct import Constructors, sizes
from verify.checks.scan.server.embedding import whole_vocabulary
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
from verify.checks.scan.server.settings import denied, set_besides, settings
from verify.checks.scan.server.values import Unknown
from verify.engines.sources import reading
from verify.interpreter.index import Class, Index
from verify.report.report import Finding

ENGINE = reading()
FLAGS, KNOWN = ENGINE.flags, ENGINE.launches
# what is said of a sum behind a dispatcher's combine holds where the layer comes to it at all
WORKS = "a model that works with this all-to-all backend: nobody has looked"
FUSES_ELSEWHERE = ("hardware that this option's fused kernels run on",)
_WORD = re.compile(r"\w+")


@dataclass(eq=False)
class Launcher:
    """Asks the source which launches it takes; each question is answered once."""

    index: Index
    roots: Roots
    arguments: Arguments = field(init=False)
    constructors: Constructors = field(init=False)
    idle: Idle = field(init=False)
    runners: Runners = field(init=False)
    _outcomes: dict[tuple[object, ...], Outcome] = field(default_factory=dict)
    _platforms: dict[str, str | None] = field(default_factory=dict)
    _models: dict[Class, tuple[Model, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.arguments = Arguments(self.index)
        self.constructors = Constructors(self.index)
        self.idle = Idle(self.index)
        self.runners = Runners(self.index)

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
        asked = settings(layer, one.files, one.asks, self.arguments.defaults)
        if one.cause not in OF_BACKEND:
            leading, needs = KNOWN.by_cause.get(one.cause, ()), tuple[str, ...]()
            if one.cause == "gathered":
                leading, needs = self._leading(one.row, one.asks)
            known = self.arguments.defaults.keys()
            leading = tuple(options for options in leading if options.keys() <= known)
            if not leading:
                return None
            launches = [set_besides(options, asked) for options in leading]
            launch = self._first(layer, launches, found, one)
            found.launch = launch and replace(launch, needs=needs)
            return found
        taken: list[tuple[int, bool, Launch]] = []
        for backend in one.backends:
            launches = [set_besides(options, asked) for options in _with_backend(backend)]
            launch = self._first(layer, launches, found)
            if launch is not None:
                launch = self._run(layer, backend, launch, one.files)
                found.backends.add(backend)
                taken.append((len(launch.needs), not self.runners.known(backend), launch))
        # whose experts are known to run comes before what takes fewer options
        found.launch = min(taken, key=lambda it: (*it[:2], size_of(it[2])))[2] if taken else None
        return found

    def _run(self, layer: Class, backend: str, launch: Launch, files: Iterable[str]) -> Launch:
        """The launch with what runs the experts, and what a machine or a checkpoint must have."""
        platform = self._platform(backend)
        if platform:
            # what runs them there is the platform's own
            return replace(launch, needs=(platform,))
        needed = self.runners.instead(backend, launch.options)
        if needed is None:
            return launch
        needed = self.runners.fit(needed, {*files, *(one.module.path for one in layer.ancestors)})
        asked = (
            {**launch.options, KNOWN.behind.option: runner}
            for runner in KNOWN.runners
            if runner in needed and self.runners.runs(runner)
        )
        better = self._first(layer, tuple(asked), Judged())
        return better or replace(launch, needs=(self._quantised(needed),))

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
        taken = [
            launch
            for layer in layers
            for asked in (self._asked(layer, finding),)
            for options in launches
            for launch in (self._first(layer, (set_besides(options, asked),), Judged()),)
            if launch is not None
        ]
        told = [
            counted(
                replace(
                    finding,
                    launch=launch.words,
                    needs=(*finding.needs, *needs),
                    reach="conditional" if finding.needs or needs else plain_reach(launch.options),
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

    def _asked(self, layer: Class, finding: Finding) -> Options:
        """The options that a finding's conditions ask for."""
        files = (finding.file,) if finding.file else ()
        return settings(layer, files, finding.conditions, self.arguments.defaults)

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
        launches: Sequence[Options],
        found: Judged,
        asked: Asked | None = None,
    ) -> Launch | None:
        """The first launch that some model of the layer takes, and that leads to what is asked."""
        if layer not in self._models:
            self._models[layer] = models_of(self.index, self.roots, layer)
        models = self._models[layer]
        for options in launches:
            for model in models or (Model(),):
                refusal = self._refusal(layer, model, options)
                if refusal is None and asked is not None:
                    refusal = self._denied(asked, model, options)
                if refusal is None:
                    settled = sizes(self._outcome(model, options).options)
                    known = {k: v for k, v in settled.items() if isinstance(v, int)}
                    return Launch(options=options, sizes=known)
                found.note(refusal, " ".join(words_of(options)))
        return None

    def _refusal(self, layer: Class, model: Model, options: Options) -> str | None:
        """Why a model does not start so, None if it does as far as the source tells."""
        outcome = self._outcome(model, options)
        if outcome.refused is not None:
            # what ends every launch was misread
            plain = self._outcome(model, KNOWN.plain).refused
            return None if outcome.refused == plain else str(outcome.refused)
        for name, value in options.items():
            settled = outcome.options.get(name, value)
            if name not in KNOWN.moved and not isinstance(settled, Unknown) and settled != value:
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
        return None if built is None else str(built)

    def _denied(self, one: Asked, model: Model, options: Options) -> str | None:
        """Where the server sets what a condition says is not set."""
        outcome, defaults = self._outcome(model, options), self.arguments.defaults
        name = denied(one.layer, one.files, one.asks, defaults, outcome.options)
        return None if name is None else str(outcome.places.get(name, name))

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

    def _platform(self, backend: str) -> str | None:
        """What a machine must have for a backend."""
        if backend not in self._platforms:
            self._platforms[backend] = platform_of(self.index, backend)
        return self._platforms[backend]

    def _outcome(self, model: Model, options: Options) -> Outcome:
        """What the argument handling makes of a launch."""
        key = (self.arguments.told_apart(model), frozenset(options.items()))
        if key not in self._outcomes:
            self._outcomes[key] = self.arguments.follow(options, model)
        return self._outcomes[key]


def _with_backend(backend: str) -> Iterator[Options]:
    """Launches with an all-to-all backend, the smallest first."""
    for options in (KNOWN.plain, KNOWN.attention_dp):
        yield {**options, "moe_a2a_backend": backend}
    for runner in KNOWN.runners:
        yield {**KNOWN.attention_dp, "moe_a2a_backend": backend, "moe_runner_backend": runner}
