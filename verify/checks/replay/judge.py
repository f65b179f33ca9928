"""Is every shard of every producer in every token exactly once?

The unit is what the same code yields on one rank: a gate or a scaling factor scales both alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from verify.emulator.witness import Seen

Counts = list[list[float]]
_TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Judged:
    """`kind`: exact, double, missing, mixed, wrong tokens, crash, hang or cannot run.

    `mixed` is some sums too large and others too small, or sums over different tokens.

    `counts[r][s]`: how often rank s's contribution, whichever rank that holds the same made it, is
    in what rank r holds, for the producer and token that are furthest from right; `max_error`
    relative to the right value; `producers` maps each producer to its kind.
    """

    kind: str
    why: str = ""
    counts: Counts | None = None
    max_error: float | None = None
    producers: dict[str, str] = field(default_factory=dict)


def judge(ranks: Sequence[Seen], *, reference: Seen) -> Judged:
    """Compare what all ranks hold with the one-rank `reference`."""
    scale = float(reference.found[0] / reference.marks[0])
    if not torch.allclose(reference.found, reference.marks * scale):
        return Judged(kind="cannot run", why="on one rank, tokens do not keep their marks")
    for rank, seen in enumerate(ranks):
        wanted = seen.marks * scale
        if not torch.allclose(seen.found[: len(wanted)], wanted.to(seen.found.dtype)):
            return Judged(
                kind="wrong tokens",
                why=f"rank {rank} holds marks {_plain(seen.found)} for tokens {_plain(wanted)}",
            )
    producers: dict[str, str] = {}
    worst, worst_name = -1.0, ""
    for name in {name: None for seen in ranks for name in seen.shards}:
        error, kind = _error(ranks, name, unit=_unit(reference, name))
        if _other_tokens(ranks, name, reference):
            error, kind = max(error, 1.0), "mixed"
        producers[name] = kind
        if error > worst:
            worst, worst_name = error, name
    if not producers:
        return Judged(kind="cannot run", why="no experts and no row-parallel linear contributed")
    kinds = set(producers.values()) - {"exact"}
    return Judged(
        kind="exact" if not kinds else kinds.pop() if len(kinds) == 1 else "mixed",
        why="" if worst <= _TOLERANCE else worst_name,
        counts=_matrix(ranks, worst_name, unit=_unit(reference, worst_name)),
        max_error=worst,
        producers=producers,
    )


def _unit(reference: Seen, name: str) -> float:
    counts = reference.counts.get(name)
    return 1.0 if counts is None or not len(counts) else float(counts[0].sum())


def _error(ranks: Sequence[Seen], name: str, *, unit: float) -> tuple[float, str]:
    """The largest relative error over ranks, tokens and shards, and what kind it is."""
    shards = _shards(ranks, name)
    above = below = 0.0
    for seen in ranks:
        if name not in seen.counts:
            continue
        folded = _by_shard(seen.counts[name], shards)
        if folded.numel() and unit:
            above = max(above, float(folded.max()) / unit - 1)
            below = max(below, 1 - float(folded.min()) / unit)
    high, low = above > _TOLERANCE, below > _TOLERANCE
    kind = "mixed" if high and low else "double" if high else "missing" if low else "exact"
    return max(above, below), kind


def _shards(ranks: Sequence[Seen], name: str) -> list[tuple[int, int]]:
    """By rank: which shard of the producer it holds, of how many."""
    return [seen.shards.get(name, (0, 1)) for seen in ranks]


def _by_shard(counts: torch.Tensor, shards: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Tokens x ranks to tokens x shards: ranks that hold the same shard contribute the same."""
    folded = torch.zeros((len(counts), max(count for _, count in shards)))
    for rank, (shard, _) in enumerate(shards):
        folded[:, shard] += counts[:, rank]
    return folded


def _other_tokens(ranks: Sequence[Seen], name: str, reference: Seen) -> bool:
    """Whether contributions made from other tokens are in a rank's tokens.

    Contributions say which mark they were made from, by a factor that one rank shows.
    """
    if name not in reference.counts:
        return False
    factor = float(reference.worked_on[name][0] / reference.marks[0])
    alone = (reference.marks * factor).to(torch.float32)
    if not torch.allclose(reference.worked_on[name], alone, rtol=1e-4):
        # an activation that is not linear: what it makes of a mark tells no tokens apart
        return False
    for seen in ranks:
        if name in seen.counts and factor:
            unit = _unit(reference, name)
            own = seen.marks * seen.counts[name].sum(dim=1) * factor / unit
            if not torch.allclose(seen.worked_on[name], own.to(torch.float32), rtol=1e-4):
                return True
    return False


def _matrix(ranks: Sequence[Seen], name: str, *, unit: float) -> Counts:
    """Each rank's worst token: how often it holds the shard that each rank contributes."""
    rows, shards = [], _shards(ranks, name)
    for seen in ranks:
        counts = seen.counts.get(name)
        if counts is None or not len(counts):
            rows.append([0.0] * len(ranks))
            continue
        held = _by_shard(counts, shards)[:, [shard for shard, _ in shards]] / (unit or 1)
        token = int((held - 1).abs().sum(dim=1).argmax())
        rows.append([round(float(value), 6) for value in held[token]])
    return rows


def _plain(tensor: torch.Tensor) -> list[float]:
    return [round(float(value), 3) for value in tensor[:8]]
