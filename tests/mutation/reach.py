"""Which lines of decision code an unmutated release runs, by model and layout."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.engine import Judge, layout
from tests.mutation.strata import Stratum


@dataclass(frozen=True, kw_only=True)
class Reached:
    """One launch of the release as it is; `lines` are empty where it is not exact."""

    model: str
    layout: str
    outcome: str
    nats: float | None
    reason: str | None
    lines: Mapping[str, frozenset[int]]


def reach(judge: Judge, release: Path, stratum: Stratum) -> Iterator[Reached]:
    """Every launch that the stratum is judged on, and what it runs of the stratum's files."""
    traced = stratum.files(release)
    for model, words in stratum.judges:
        for word in words:
            answer = judge.judge(model, layout(word), {"trace": traced})
            lines: dict[str, set[int]] = {}
            for name, text in answer.files.items():
                for place in text.splitlines() if name.startswith("lines.") else ():
                    file, _, number = place.rpartition(":")
                    lines.setdefault(file, set()).add(int(number))
            exact = answer.outcome == "exact"
            yield Reached(
                model=model,
                layout=word,
                outcome=answer.outcome,
                nats=answer.nats,
                reason=answer.reason,
                lines={file: frozenset(n) for file, n in lines.items()} if exact else {},
            )
