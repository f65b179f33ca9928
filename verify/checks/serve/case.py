"""What is served, and how it ended."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from verify.checks.serve.layout import Layout
from verify.report.report import Json

Outcome = Literal["exact", "diverged", "refused", "sizes-differ", "ill-conditioned", "cannot-run"]
OUTCOMES: tuple[Outcome, ...] = (
    "exact",
    "diverged",
    "refused",
    "sizes-differ",
    "ill-conditioned",
    "cannot-run",
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model on one layout; `arguments` are what the command line adds to the launch.

    `thorough`: every corruption that the layout has is tried, also those that few cases need.
    """

    model: str
    layout: Layout
    seed: int = 0
    arguments: tuple[str, ...] = ()
    patch: str | None = None
    thorough: bool = False


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a case ended; `launch` are the arguments that the server was given for its layout.

    `dlogprob` is the largest |difference| of a log-probability against one rank, in nats, and
    `steps` the same by step; None where nothing could be compared. `module` is the first whose
    output differs although its inputs agree; `accused` says in which `step`, on which `rank`, in
    how many `rows`, how `far`, and `what` it is where that can be told. `corruptions` are rows of
    `where`, `how`, `nats`, `seen`, `module`. `patch_moves` is how far the patch moves one rank, in
    nats. In JSON a distance that is no finite number is null: of a case that diverged, ranks whose
    answers are not numbers. `said` is the end of what ranks wrote, of a run on GPUs that failed.
    """

    release: str
    case: Case
    launch: tuple[str, ...]
    outcome: Outcome
    dlogprob: float | None = None
    tolerance: float | None = None
    step: str | None = None
    steps: Mapping[str, float] = field(default_factory=dict)
    module: str | None = None
    accused: Mapping[str, Json] = field(default_factory=dict)
    corruptions: tuple[Mapping[str, Json], ...] = ()
    patch_moves: float | None = None
    reason: str | None = None
    stand_ins: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    said: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Json]:
        """The keys of `cases` in the report."""
        return {
            "release": self.release,
            "model": self.case.model,
            "layout": str(self.case.layout),
            "launch": list(self.launch),
            "outcome": self.outcome,
            "dlogprob": _finite(self.dlogprob),
            "tolerance": _finite(self.tolerance),
            "step": self.step,
            "steps": {step: _finite(nats) for step, nats in self.steps.items()},
            "module": self.module,
            "accused": {name: _finite(value) for name, value in self.accused.items()},
            "corruptions": [
                {name: _finite(value) for name, value in each.items()} for each in self.corruptions
            ],
            "patch_moves": _finite(self.patch_moves),
            "reason": self.reason,
            "seed": self.case.seed,
            "patch": self.case.patch,
            "stand_ins": list(self.stand_ins),
            "versions": dict(self.versions),
            "seconds": round(self.seconds, 1),
            **({"said": list(self.said)} if self.said else {}),
        }


def _finite(value: Json) -> Json:
    """JSON has no word for what is not a number, nor for infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
