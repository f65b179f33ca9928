"""The launch that shows a finding: the smallest that the source takes for a model that has it.

What stands here is which options make rows local, split experts over two groups, and so on. Which
models and backends take them is read from the source.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from verify.checks.scan.addends.judge import Cause
from verify.checks.scan.pipeline import RULE as PIPELINE
from verify.checks.scan.roots import Roots
from verify.checks.scan.server.arguments import Arguments, Options, Outcome
from verify.checks.scan.server.construct import Constructors, sizes
from verify.checks.scan.server.embedding import whole_vocabulary
from verify.checks.scan.server.idle import Idle
from verify.checks.scan.server.launched import NEEDS, Judged, Launch, plain_reach, size_of, words_of
from verify.checks.scan.server.models import Model, models_of
from verify.checks.scan.server.platforms import platform_of
from verify.checks.scan.server.values import Unknown
from verify.engines.sglang.vocabulary import FLAGS
from verify.interpreter.index import Class, Index
from verify.report.report import Finding

PLAIN: Options = {"tp_size": 4}
ATTENTION_DP: Options = {"tp_size": 4, "dp_size": 4, "enable_dp_attention": True}
RUNNERS = ("flashinfer_cutlass", "deep_gemm")
FP4: Options = {
    **ATTENTION_DP,
    "ep_size": 4,
    "quantization": "modelopt_fp4",
    "moe_runner_backend": "flashinfer_cutlass",
}
COPIES: Options = {**PLAIN, "attn_cp_size": 2, "moe_dp_size": 2}
DENSE: Options = {**PLAIN, "moe_dense_tp_size": 1}
# without a cause here: what a launch needs was not worked out
LAUNCHES: Mapping[Cause, tuple[Options, ...]] = {
    "gathered": (PLAIN,),
    "FI": (FP4,),
    "local-work": ({**PLAIN, "dwdp_size": 4},),
    "dense": (DENSE, {**ATTENTION_DP, "moe_dense_tp_size": 1}),
    "resummed": (DENSE, {**ATTENTION_DP, "moe_dense_tp_size": 1}),
    "copies": (COPIES,),
    "own-copies": (COPIES,),
    "split": ({**PLAIN, "ep_size": 2},),
}
# releases name it one way or the other
FUSES: tuple[Options, ...] = (
    {**PLAIN, "enable_flashinfer_allreduce_fusion": True},
    {**PLAIN, "flashinfer_allreduce_fusion_backend": "auto"},
)
# by the flags that hold in a row, the first that does
BY_FLAG: Mapping[str, tuple[Options, ...]] = {
    "FI": (FP4,),
    "DP": ({**ATTENTION_DP, "ep_size": 4},),
    "RS": (ATTENTION_DP,),
    "AF": FUSES,
}
STAGES: tuple[Options, ...] = tuple({**options, "pp_size": 2} for options in FUSES)
ROW_NEEDS: Mapping[str, tuple[str, ...]] = {
    "FI": NEEDS["FI"],
    "AF": ("a CUDA GPU with the fused all-reduce's kernels",),
}
# options that stand for others once the server has read them
_MOVES = frozenset({"dp_size", "enable_dp_attention"})


@dataclass(eq=False)
class Launcher:
    """Asks the source which launches it takes; each question is answered once."""

    index: Index
    roots: Roots
    arguments: Arguments = field(init=False)
    constructors: Constructors = field(init=False)
    idle: Idle = field(init=False)
    _outcomes: dict[tuple[object, ...], Outcome] = field(default_factory=dict)
    _platforms: dict[str, str | None] = field(default_factory=dict)
    _models: dict[Class, tuple[Model, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.arguments = Arguments(self.index)
        self.constructors = Constructors(self.index)
        self.idle = Idle(self.index)

    def read(self) -> None:
        """Read the argument handling, as every launch needs it."""
        self._outcome(Model(), PLAIN)

    def judged(self, layer: Class, cause: Cause, backends: Iterable[str]) -> Judged | None:
        """Which launches show a cause in a layer; None where that was not worked out."""
        found = Judged()
        if self.arguments.server is None:
            return None
        if cause != "backend":
            known = self.arguments.defaults.keys()
            if not any(options.keys() <= known for options in LAUNCHES.get(cause, ())):
                return None
            found.launch = self._first(layer, LAUNCHES[cause], found)
            return found
        for backend in sorted(backends):
            launch = self._first(layer, tuple(_with_backend(backend)), found)
            if launch is not None:
                platform = self._platform(backend)
                launch = replace(launch, needs=(platform,) if platform else ())
                found.backends.add(backend)
                found.launch = min(found.launch or launch, launch, key=size_of)
        return found

    def shown(self, finding: Finding, layers: Iterable[Class]) -> Finding:
        """A finding about a row of flags with the launch that leads there.

        One that no layer takes is a finding still: another launch may lead there.
        """
        bits = dict(zip(FLAGS, finding.row or "", strict=False))
        flag = next((name for name in BY_FLAG if bits.get(name) == "1"), None)
        launches = BY_FLAG[flag] if flag else (PLAIN,)
        if finding.rule == PIPELINE:
            launches = STAGES
        known = self.arguments.defaults.keys()
        launches = tuple(options for options in launches if options.keys() <= known)
        if self.arguments.server is None:
            return finding
        for layer in layers:
            launch = self._first(layer, launches, Judged())
            if launch is not None:
                needs = ROW_NEEDS.get(flag or "", ())
                return replace(
                    finding,
                    launch=launch.words,
                    needs=needs,
                    reach="conditional" if needs else plain_reach(launch.options),
                )
        return finding

    def _first(self, layer: Class, launches: Sequence[Options], found: Judged) -> Launch | None:
        """The first launch that some model of the layer takes."""
        if layer not in self._models:
            self._models[layer] = models_of(self.index, self.roots, layer)
        models = self._models[layer]
        for options in launches:
            for model in models or (Model(),):
                refusal = self._refusal(layer, model, options)
                if refusal is None:
                    return Launch(options=options)
                found.note(refusal, " ".join(words_of(options)))
        return None

    def _refusal(self, layer: Class, model: Model, options: Options) -> str | None:
        """Why a model does not start so, None if it does as far as the source tells."""
        outcome = self._outcome(model, options)
        if outcome.refused is not None:
            # what ends every launch was misread
            plain = self._outcome(model, PLAIN).refused
            return None if outcome.refused == plain else str(outcome.refused)
        for name, value in options.items():
            settled = outcome.options.get(name, value)
            if name not in _MOVES and not isinstance(settled, Unknown) and settled != value:
                return outcome.places.get(name, name)
        built = self.constructors.ends(layer, outcome.options)
        if built is not None and self.constructors.ends(layer, self._plain) is not None:
            # what ends every launch was misread
            built = None
        if built is None:
            built = self.idle.nothing_to_act_on(layer, options, self.arguments.defaults)
        attention = sizes(outcome.options)["attn_dp_size"]
        if built is None and isinstance(attention, int) and attention > 1:
            built = whole_vocabulary(self.roots, layer)
        return None if built is None else str(built)

    @cached_property
    def _plain(self) -> Options:
        return {**self.arguments.defaults, **PLAIN}

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
    for options in (PLAIN, ATTENTION_DP):
        yield {**options, "moe_a2a_backend": backend}
    for runner in RUNNERS:
        yield {**ATTENTION_DP, "moe_a2a_backend": backend, "moe_runner_backend": runner}
