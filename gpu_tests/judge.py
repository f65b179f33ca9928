"""The verdict on what one rank ends up with, and on what all of them do together.

Counts decide the kind; values have to tell the same story: they must equal the reference exactly
where the counts are all one, and otherwise equal the sum of the partials as often as counted.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from gpu_tests.block import Shard
from gpu_tests.reference import Truth
from gpu_tests.rounding import TOLERANCE, Noisy
from gpu_tests.witness import FAMILIES

Kind = Literal["exact", "double", "missing", "mixed", "crash", "not prepared"]
# the worst first: one rank's verdict names the case's
SEVERITY: tuple[Kind, ...] = ("not prepared", "crash", "mixed", "double", "missing", "exact")


@dataclass(frozen=True, kw_only=True)
class RankVerdict:
    """One rank's own tokens. `counts[s]`: how often rank s's partial is in the first wrong token.

    They are counts of `family`, the first that is wrong: of a partial that ranks hold copies of,
    the sum over the copies; in a `mixed` row, of whatever token. `factor` is the highest count of
    any shard, `missing` the ranks whose partial some token lacks. `error` is the largest deviation
    from the reference over its tolerance (at most 1 is equal), `relative_error` over the root mean
    square of the block's output, `told` the deviation from what the counts predict, `final` from
    the reference after the second layer, where both layers count exactly once. A `crash` says
    `why`, and so does a case that was `not prepared`: it was not run. `fused_norm`: this rank's sum
    went through the kernel, not through an all-reduce of its own.
    """

    kind: Kind
    family: str = FAMILIES[0]
    counts: tuple[int, ...] = ()
    factor: int = 1
    missing: tuple[int, ...] = ()
    error: float = 0.0
    relative_error: float = 0.0
    told: float = 0.0
    final: float = 0.0
    why: str = ""
    fused_norm: bool = False


def judge_rank(
    *,
    ids: Sequence[int],
    total: Tensor,
    final: Tensor | None,
    truth: Truth,
    shards: Sequence[Shard],
) -> RankVerdict:
    """One rank's verdict on its rows of real tokens.

    `total` [rows, H + counts] is the completed residual with the witness columns of the first
    layer, `final` the same of the second or None where that cannot be run; `shards` is every
    rank's shard.
    """
    rows = [row for row, token in enumerate(ids) if token]
    index = torch.tensor([ids[row] - 1 for row in rows], dtype=torch.long)
    values, counts = _split(total[rows], truth, len(shards))
    verdict = _count(counts, index, shards, has_shared=truth.shared is not None)
    expected = _predict(counts, truth, index)
    reference = _rows(truth.completed, index)
    verdict = replace(
        verdict,
        error=_deviation(values, reference),
        relative_error=_relative(values, truth, index),
        told=_deviation(values, expected),
    )
    if final is None:
        return verdict
    values, counts = _split(final[rows], truth, len(shards))
    second = _count(counts, index, shards, has_shared=truth.shared is not None)
    if verdict.kind == second.kind == "exact":
        verdict = replace(verdict, final=_deviation(values, _rows(truth.final, index)))
    return verdict


def _split(rows: Tensor, truth: Truth, ranks: int) -> tuple[Tensor, Tensor]:
    """Values [rows, H] and witness counts [rows, families, tokens, ranks], in float64."""
    tokens, width = truth.completed.value.shape
    own = rows.double().cpu()
    return own[:, :width], own[:, width:].round().view(len(rows), len(FAMILIES), tokens, ranks)


def _count(
    counts: Tensor, index: Tensor, shards: Sequence[Shard], *, has_shared: bool
) -> RankVerdict:
    """The kind from witness counts [rows, families, tokens, ranks]."""
    if not len(counts):
        return RankVerdict(kind="exact")
    here = counts[torch.arange(len(counts)), :, index]
    of_all_tokens = counts.sum(2)
    strangers = (of_all_tokens != here).any(2).any(1)
    names: list[list[Hashable]] = [[shard.routed_name for shard in shards]]
    if has_shared:
        names.append([shard.shared_name for shard in shards])
    # of ranks that hold copies of a shard, one has to be counted, once
    per_family = [_per_shard(here[:, family], names[family]) for family in range(len(names))]
    wrong = [(per_shard != 1).any(1) for per_shard in per_family]
    mixed = bool(strangers.any())
    family = 0 if mixed else next((n for n, rows in enumerate(wrong) if rows.any()), 0)
    rows = strangers if mixed else wrong[family]
    first = int(rows.nonzero()[0]) if rows.any() else 0
    factor = int(max(per_shard.max() for per_shard in per_family))
    absent = (per_family[family] == 0).any(0)
    kind: Kind = "exact"
    if mixed:
        kind = "mixed"
    elif factor > 1:
        kind = "double"
    elif absent.any():
        kind = "missing"
    places = _places(names[family])
    in_row = _per_shard(of_all_tokens[first : first + 1, family], names[family])[0]
    return RankVerdict(
        kind=kind,
        family=FAMILIES[family],
        counts=tuple(int(in_row[place]) for place in places),
        factor=factor,
        missing=tuple(rank for rank, place in enumerate(places) if absent[place]),
    )


def _per_shard(counts: Tensor, names: Sequence[Hashable]) -> Tensor:
    """[rows, ranks] summed over ranks with the same shard: [rows, shards]."""
    place = torch.tensor(_places(names))
    return counts.new_zeros(len(counts), len(set(names))).index_add(1, place, counts)


def _places(names: Sequence[Hashable]) -> list[int]:
    """Each rank's shard, numbered in the order in which they come."""
    order = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return [order[name] for name in names]


def _predict(counts: Tensor, truth: Truth, index: Tensor) -> Noisy:
    """What the values must be if the counts are right: every partial as often as counted."""
    partials = [truth.routed] if truth.shared is None else [truth.routed, truth.shared]
    residual = _rows(truth.residual, index)
    value, variance = residual.value.clone(), residual.noise.square()
    for family, partial in enumerate(partials):
        weights = counts[:, family].mT
        value += torch.einsum("rst,sth->rh", weights, partial.value)
        variance += torch.einsum("rst,sth->rh", weights.square(), partial.noise.square())
        # a sum of k copies is stored at k times the size
        variance += (
            truth.unit * torch.einsum("rst,sth->rh", weights, partial.value.abs())
        ).square()
    return Noisy(
        value=value, noise=(variance + _rows(truth.completed, index).noise.square()).sqrt()
    )


def _rows(tensor: Noisy, index: Tensor) -> Noisy:
    return Noisy(value=tensor.value[index], noise=tensor.noise[index])


def _deviation(values: Tensor, expected: Noisy) -> float:
    """The largest error in units of its tolerance."""
    if not len(values):
        return 0.0
    return float(((values - expected.value).abs() / (TOLERANCE * expected.noise)).max())


def _relative(values: Tensor, truth: Truth, index: Tensor) -> float:
    """The largest error relative to the root mean square of what the block has to add."""
    if not len(values):
        return 0.0
    completed = truth.completed.value[index]
    added = completed - truth.residual.value[index]
    return float((values - completed).abs().max() / added.square().mean().sqrt())


def together(verdicts: Sequence[RankVerdict]) -> Kind:
    """The case's kind: the worst of its ranks'."""
    return min((verdict.kind for verdict in verdicts), key=SEVERITY.index)
