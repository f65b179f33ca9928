"""What is kept of all layers' runs: which reduction was seen where, who took it, what is wrong."""

from dataclasses import dataclass, field

from verify.scan.addends.findings import Collected
from verify.scan.index import Class
from verify.scan.judge import Fault
from verify.scan.layers import LayerRun
from verify.scan.sites import Key
from verify.scan.values import Place


@dataclass(eq=False)
class Tally:
    """`seen`: a reduction -> the layers it ran in and the kinds of consumers it went to."""

    seen: dict[Key, list[tuple[Class, str]]] = field(default_factory=dict)
    places: dict[Key, Place] = field(default_factory=dict)
    faults: dict[Key, list[tuple[Fault, Class]]] = field(default_factory=dict)
    entered: set[tuple[str, int]] = field(default_factory=set)
    given_up: list[str] = field(default_factory=list)
    fusing: list[Class] = field(default_factory=list)
    addends: Collected = field(default_factory=Collected)

    def add(self, run: LayerRun) -> None:
        """Count one layer's run."""
        self.entered |= run.state.entered
        for reduction in run.reductions:
            self._note(reduction.place, run.cls, "inside")
        for sink in run.sinks:
            for place in {place for part in sink.parts for place in part.reduced}:
                self._note(place, run.cls, sink.kind)
        if any(sink.kind == "fused norm" for sink in run.sinks):
            self.fusing.append(run.cls)
        for fault in run.faults:
            for place in fault.places:
                key = (place.file, place.line, place.column)
                self.faults.setdefault(key, []).append((fault, run.cls))
        self.addends.add(run.cls, run.addends)
        if run.unresolved:
            where = f"{run.cls.module.path}:{run.cls.line}"
            self.given_up.append(f"{where}: {run.cls.name} cannot be followed: {run.unresolved}")

    def _note(self, place: Place, cls: Class, kind: str) -> None:
        key = (place.file, place.line, place.column)
        self.places.setdefault(key, place)
        pairs = self.seen.setdefault(key, [])
        if (cls, kind) not in pairs:
            pairs.append((cls, kind))
