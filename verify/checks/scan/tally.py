"""What is kept of all layers' runs: which reduction was seen where, who took it, what is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from verify.checks.scan.addends.findings import Collected
from verify.checks.scan.addends.judge import Addends
from verify.checks.scan.judge import Fault
from verify.checks.scan.layers import LayerRun
from verify.interpreter.index import Class
from verify.interpreter.state import Approximation
from verify.interpreter.values import Key, Place


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is kept of one layer's run. It knows places only, so that a process can send it.

    `reduced`: the collectives that ran; `taken`: who took what they had summed up; `fuses`: whether
    a sum may be left to the next layer; `unread`: the files that could not be read, and why;
    `approximated`: the steps that are not exact, of a run that came to its end.
    """

    entered: frozenset[tuple[str, int]]
    reduced: tuple[Place, ...]
    taken: tuple[tuple[Place, str], ...]
    fuses: bool
    faults: tuple[Fault, ...]
    addends: Addends
    given_up: bool
    unread: Mapping[str, str]
    approximated: frozenset[Approximation]


def outcome(run: LayerRun) -> Outcome:
    """What is kept of a run; its conditions, which are the bulk of the memory, are not."""
    taken = (
        (place, sink.kind) for sink in run.sinks for part in sink.parts for place in part.reduced
    )
    return Outcome(
        entered=frozenset(run.state.entered),
        reduced=tuple(reduction.place for reduction in run.reductions),
        taken=tuple(dict.fromkeys(taken)),
        fuses=any(sink.kind == "fused norm" for sink in run.sinks),
        faults=run.faults,
        addends=run.addends,
        given_up=run.given_up,
        unread=dict(run.state.index.unread),
        approximated=frozenset(() if run.given_up else run.state.approximated),
    )


# instead of a consumer's kind: the run ended before anybody could tell
GIVEN_UP = "given up"


@dataclass(eq=False)
class Tally:
    """`seen`: a reduction -> the layers it ran in and the kinds of consumers it went to."""

    seen: dict[Key, list[tuple[Class, str]]] = field(default_factory=dict)
    places: dict[Key, Place] = field(default_factory=dict)
    faults: dict[Key, list[tuple[Fault, Class]]] = field(default_factory=dict)
    entered: set[tuple[str, int]] = field(default_factory=set)
    fusing: list[Class] = field(default_factory=list)
    addends: Collected = field(default_factory=Collected)

    def add(self, cls: Class, seen: Outcome) -> None:
        """Count one layer's run."""
        if not seen.given_up:
            self.entered |= seen.entered
        for place in seen.reduced:
            self._note(place, cls, GIVEN_UP if seen.given_up else "inside")
        for place, kind in seen.taken:
            self._note(place, cls, GIVEN_UP if seen.given_up else kind)
        if seen.fuses:
            self.fusing.append(cls)
        for fault in seen.faults:
            for place in fault.places:
                self.faults.setdefault(place.key, []).append((fault, cls))
        self.addends.add(cls, seen.addends)

    def _note(self, place: Place, cls: Class, kind: str) -> None:
        self.places.setdefault(place.key, place)
        pairs = self.seen.setdefault(place.key, [])
        if (cls, kind) not in pairs:
            pairs.append((cls, kind))
