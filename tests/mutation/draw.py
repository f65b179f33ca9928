"""Draws mutants of a release by seed, from the lines that it runs, operators and files in turn."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.mutation.operators import Mutation, mutated, mutations
from tests.mutation.reach import Reached
from tests.mutation.strata import Stratum


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One mutation of one file of a release; `id` says which draw it was."""

    id: str
    release: str
    stratum: str
    seed: int
    file: str
    mutation: Mutation

    def as_json(self) -> dict[str, Any]:
        """As a line of results has it."""
        return asdict(self)


def mutant(row: Mapping[str, Any]) -> Mutant:
    """What `Mutant.as_json` wrote."""
    names = ("id", "release", "stratum", "seed", "file")
    edits = tuple((a, b, text) for a, b, text in row["mutation"]["edits"])
    mutation = Mutation(**{**row["mutation"], "edits": edits})
    return Mutant(mutation=mutation, **{name: row[name] for name in names})


def draw(release: Path, stratum: Stratum, *, seed: int, reached: Sequence[Reached]) -> list[Mutant]:
    """The stratum's quota of mutants, the same for the same seed and release.

    Operators take turns in an order of the seed's; one that has nothing left is passed over. Of an
    operator's files the one drawn least comes first.
    """
    chance = random.Random(f"{seed} {release.name} {stratum.name}")
    sources = {file: (release / file).read_text("utf-8") for file in stratum.files(release)}
    pools: dict[str, dict[str, list[Mutation]]] = {}
    for file, source in sources.items():
        lines = frozenset().union(*(row.lines.get(file, ()) for row in reached))
        for each in mutations(source):
            if not lines.isdisjoint(range(each.line, each.last + 1)):
                pools.setdefault(each.operator, {}).setdefault(file, []).append(each)
    for files in pools.values():
        for pool in files.values():
            chance.shuffle(pool)
    operators = sorted(pools)
    chance.shuffle(operators)
    drawn: list[Mutant] = []
    texts: set[str] = set()
    while len(drawn) < stratum.quota and any(pools.values()):
        for operator in operators:
            if len(drawn) < stratum.quota:
                found = _one(
                    files=pools[operator],
                    sources=sources,
                    texts=texts,
                    used=Counter(m.file for m in drawn if m.mutation.operator == operator),
                    chance=chance,
                )
                if found:
                    file, mutation = found
                    number = len(drawn)
                    drawn.append(
                        Mutant(
                            id=f"{release.name}-{stratum.name}-{seed}-{number:03d}",
                            release=release.name,
                            stratum=stratum.name,
                            seed=seed,
                            file=file,
                            mutation=mutation,
                        )
                    )
    return drawn


def _one(
    *,
    files: dict[str, list[Mutation]],
    sources: dict[str, str],
    texts: set[str],
    used: Mapping[str, int],
    chance: random.Random,
) -> tuple[str, Mutation] | None:
    """The operator's next mutation, taken out of its files; None when they are used up."""
    while files:
        file = min(files, key=lambda name: (used.get(name, 0), chance.random()))
        mutation = files[file].pop()
        if not files[file]:
            del files[file]
        text = mutated(sources[file], mutation)
        if text is not None and text not in texts:
            texts.add(text)
            return file, mutation
    return None
