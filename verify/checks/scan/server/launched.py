"""What a finding is told of its launches: the command, what it needs, who refuses the others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from verify.checks.scan.addends.judge import Cause
from verify.checks.scan.counted import counted, of_addend
from verify.engines.sources import reading
from verify.report.report import Finding, Reach

ENGINE = reading()
Options = Mapping[str, Any]
# what a message says of backends as long as nobody has asked the source
NOT_READ = " (which of them the server takes for this model was not read)"
_PARALLEL_SIZES = frozenset({"tp_size", "ep_size", "dp_size", "pp_size", "enable_dp_attention"})
NEEDS: Mapping[Cause, tuple[str, ...]] = {
    "dispatched": ENGINE.launches.needs[ENGINE.roles.combines],
    "unsent": ("a model, or experts, that the backend's own kernels do not take",),
}


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A launch that the source takes for some model; `needs` is what a machine must have.

    `sizes` are those of the groups, as the server settles them.
    """

    options: Options
    needs: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def words(self) -> tuple[str, ...]:
        """The server's command line, without the model."""
        return tuple(words_of(self.options))


@dataclass(eq=False)
class Judged:
    """What became of a layer's launches: the first that is taken, and what refused the others."""

    launch: Launch | None = None
    backends: set[str] = field(default_factory=set)
    refused: dict[str, set[str]] = field(default_factory=dict)

    def note(self, refusal: str, what: str) -> None:
        """A launch was refused at a place."""
        self.refused.setdefault(refusal, set()).add(what)


@dataclass(eq=False)
class Launched:
    """The launches of one finding over its layers."""

    cause: Cause
    launch: Launch | None = None
    refused: dict[str, set[str]] = field(default_factory=dict)
    layers_refused: set[str] = field(default_factory=set)

    def heard(
        self, layer: str, judged: Judged | None, backends: tuple[str, ...]
    ) -> tuple[str, ...] | None:
        """The backends that are left of a layer's; None where the layer cannot be launched so."""
        if judged is None:
            return backends
        for place, launches in judged.refused.items():
            self.refused.setdefault(place, set()).update(launches)
        if judged.launch is None:
            self.layers_refused.add(layer)
            return None
        if self.launch is None or size_of(judged.launch) < size_of(self.launch):
            self.launch = judged.launch
        return tuple(name for name in backends if name in judged.backends)

    @property
    def refusals(self) -> tuple[str, ...]:
        """Each place that refuses a launch, and the launches."""
        return tuple(
            f"{place}: {'; '.join(sorted(launches))}"
            for place, launches in sorted(self.refused.items())
        )

    def told(self, finding: Finding) -> Finding:
        """The finding with what was heard."""
        if self.launch is None:
            return replace(finding, refused=self.refusals)
        told = replace(
            finding,
            message=finding.message.replace(NOT_READ, ""),
            reach=reach_of(self.cause, self.launch),
            launch=self.launch.words,
            needs=(*NEEDS.get(self.cause, ()), *self.launch.needs),
            refused=self.refusals,
        )
        steps = of_addend(self.cause, finding.kind, finding.row or "")
        return counted(told, steps, self.launch.options, self.launch.sizes)


def size_of(launch: Launch, variables: Sequence[str] = ()) -> tuple[int, int, tuple[str, ...]]:
    """Orders launches: fewer needs first, then fewer options and environment variables."""
    words = (*variables, *launch.words)
    return len(launch.needs), len(launch.options) + len(variables), words


def reach_of(cause: Cause, launch: Launch) -> Reach:
    """What it takes to meet a finding."""
    if cause in NEEDS or launch.needs:
        return "conditional"
    return plain_reach(launch.options)


def plain_reach(options: Options) -> Reach:
    """The reach of options that need no checkpoint and no machine of their own."""
    return "default" if options.keys() <= _PARALLEL_SIZES else "option"


def words_of(options: Options) -> Iterator[str]:
    """Options as a command line has them."""
    for name, value in options.items():
        yield f"--{name.replace('_', '-')}"
        if value is not True:
            yield str(value)
