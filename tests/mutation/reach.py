"""Which lines of decision code an unmutated release runs, by model and layout."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
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


def reached_once(
    judge: Judge, release: Path, stratum: Stratum, folder: Path | None
) -> list[Reached]:
    """As `reach`, kept in `folder`: the parts of a draw run the release as it is only once."""
    if folder is None:
        return list(reach(judge, release, stratum))
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{release.name}-{stratum.name}.json"
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            rows = [
                {**asdict(row), "lines": _sorted(row)} for row in reach(judge, release, stratum)
            ]
            part = file.with_suffix(".part")
            part.write_text(json.dumps(rows), encoding="utf-8")
            part.replace(file)
    rows = json.loads(file.read_text("utf-8"))
    return [
        Reached(**{**row, "lines": {name: frozenset(n) for name, n in row["lines"].items()}})
        for row in rows
    ]


def _sorted(row: Reached) -> dict[str, list[int]]:
    return {file: sorted(numbers) for file, numbers in row.lines.items()}
