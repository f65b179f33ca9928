"""What every rank holds, as counts of partial sums, and the collectives on it.

A rank's tensor is a sequence of runs: tokens that hold the same counts. Partial sums that differ
have a lane each in one integer, copies of the same one share a lane, so that adding two tensors is
one addition; no lane can spill (it has room for 2**32 - 1).
"""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

LANE_BITS = 32
_LANE = (1 << LANE_BITS) - 1

Family = Literal["routed", "shared", "residual"]
FAMILIES: tuple[Family, ...] = ("routed", "shared", "residual")


class ImpossibleError(Exception):
    """A collective that would hang or crash: its ranks disagree about lengths."""


class Tokens(NamedTuple):
    """Tokens `start` to `stop` of the requests that attention group `owner` serves."""

    owner: int
    start: int
    stop: int


class Run(NamedTuple):
    """Consecutive tokens with the same counts; `mixed` when other tokens were added to them."""

    tokens: tuple[Tokens, ...]
    counts: int = 0
    mixed: bool = False


Held = tuple[Run, ...]
"""One rank's tensor."""
Groups = Sequence[Sequence[int]]
"""Ranks that act together; every rank is in exactly one group."""


class State(NamedTuple):
    """Every rank's tensor, and what each of them owes: one count in each lane in use.

    Ranks with equal tensors share one: rank r holds `tensors[of[r]]`.
    """

    tensors: tuple[Held, ...]
    of: tuple[int, ...]
    owed: int = 0

    @property
    def ranks(self) -> tuple[Held, ...]:
        """The tensors by rank."""
        return tuple(self.tensors[index] for index in self.of)


def by_rank(ranks: Iterable[Held], owed: int = 0) -> State:
    """The state in which rank r holds `ranks[r]`; the very same tensor is kept once."""
    places: dict[int, int] = {}
    tensors: list[Held] = []
    of: list[int] = []
    for held in ranks:
        if id(held) not in places:
            places[id(held)] = len(tensors)
            tensors.append(held)
        of.append(places[id(held)])
    return State(tuple(tensors), tuple(of), owed)


def lanes(counts: int, family: Family, world_size: int) -> tuple[int, ...]:
    """The counts of `family`, lane by lane."""
    counts >>= LANE_BITS * FAMILIES.index(family) * world_size
    return tuple(counts >> (LANE_BITS * index) & _LANE for index in range(world_size))


def mask(family: Family, world_size: int) -> int:
    """Every bit of the lanes of `family`."""
    return ((1 << LANE_BITS * world_size) - 1) << (LANE_BITS * FAMILIES.index(family) * world_size)


def produce(
    state: State, family: Family, *, different: int, part: Callable[[int], int] | None = None
) -> State:
    """Every rank adds partial number `part(rank)`, of `different` ones, to each of its tokens.

    Without `part` it adds all of them: a sum already made.
    """
    first = LANE_BITS * FAMILIES.index(family) * len(state.of)
    total = ((1 << LANE_BITS * different) - 1) // _LANE << first
    if part is None:
        tensors = tuple([_plus(held, total) for held in state.tensors])
        return State(tensors, state.of, state.owed | total)
    tensors = tuple(
        [
            _plus(state.tensors[index], 1 << (first + LANE_BITS * part(rank)))
            for rank, index in enumerate(state.of)
        ]
    )
    return State(tensors, tuple(range(len(tensors))), state.owed | total)


def produce_on(state: State, family: Family, ranks: Container[int]) -> State:
    """Only the given `ranks` add a sum already made to each of their tokens."""
    total = 1 << (LANE_BITS * FAMILIES.index(family) * len(state.of))
    held = [
        _plus(state.tensors[index], total if rank in ranks else 0)
        for rank, index in enumerate(state.of)
    ]
    return State(tuple(held), tuple(range(len(held))), state.owed | total)


def length(held: Held) -> int:
    """Rows of a rank's tensor."""
    return sum([stop - start for run in held for _, start, stop in run.tokens])


def same_tokens(one: Held, other: Held) -> bool:
    """Whether two tensors are about the same tokens, run by run."""
    if len(one) == 1 == len(other):
        return one[0].tokens is other[0].tokens or one[0].tokens == other[0].tokens
    return [run.tokens for run in one] == [run.tokens for run in other]


def all_reduce(state: State, groups: Groups) -> State:
    """Every rank of a group ends with the sum of the group's tensors."""
    tensors: list[Held] = []
    of = list(state.of)
    for group in groups:
        held = [state.tensors[state.of[rank]] for rank in group]
        total = held[0] if len(group) == 1 else _sum(held)
        if not _mixed(total):
            tensors.append(total)
            for rank in group:
                of[rank] = len(tensors) - 1
        else:
            for rank, own in zip(group, held, strict=True):
                tensors.append(_named_as(own, total))
                of[rank] = len(tensors) - 1
    return State(tuple(tensors), tuple(of), state.owed)


def reduce_scatter(state: State, groups: Groups, sizes: Sequence[int] | None = None) -> State:
    """Rank i of a group ends with chunk i of the sum; chunks are equal or have the given `sizes`.

    Raises `ImpossibleError` where the lengths do not fit, as upstream's wrappers assert.
    """
    ranks = list(state.ranks)
    for group in groups:
        held = [ranks[rank] for rank in group]
        total = _sum(held)
        chunks = _chunks(length(total), len(group), sizes)
        summed = [_named_as(own, total) for own in held] if _mixed(total) else [total] * len(group)
        for rank, chunk in zip(group, keep(summed, chunks, range(len(group))), strict=True):
            ranks[rank] = chunk
    return by_rank(ranks, state.owed)


def keep(tensors: Iterable[Held], sizes: Sequence[int], chosen: Iterable[int]) -> list[Held]:
    """Of each tensor, cut into chunks of these `sizes`, the chosen chunk.

    Raises `ImpossibleError` for a tensor of another length: rows of it are not there.
    """
    kept: dict[tuple[int, int], Held] = {}
    chunks: dict[int, list[tuple[Tokens, ...]]] = {}
    result = []
    for held, index in zip(tensors, chosen, strict=True):
        key = (id(held), index)
        if key not in kept:
            if len(held) == 1:
                # tensors of different ranks are usually about the same tokens
                tokens, counts, mixed = held[0]
                if id(tokens) not in chunks:
                    _require_rows(length(held), sizes)
                    chunks[id(tokens)] = _split(tokens, sizes)
                chunk = chunks[id(tokens)][index]
                kept[key] = (Run(chunk, counts, mixed),) if chunk else ()
            else:
                _require_rows(length(held), sizes)
                start = sum(sizes[:index])
                kept[key] = _cut(held, start, start + sizes[index])
        result.append(kept[key])
    return result


def all_gather(state: State, groups: Groups) -> State:
    """Every rank of a group ends with the group's tensors one after the other."""
    result = list(state.ranks)
    for group in groups:
        together = tuple(_merged(run for rank in group for run in result[rank]))
        for rank in group:
            result[rank] = together
    return by_rank(result, state.owed)


def _plus(held: Held, counts: int) -> Held:
    if len(held) == 1:
        tokens, had, mixed = held[0]
        # where a proof spends most of its time: a run made without its class's own function
        return (tuple.__new__(Run, (tokens, had + counts, mixed)),)
    return tuple(Run(tokens, had + counts, mixed) for tokens, had, mixed in held)


def _chunks(total: int, ranks: int, sizes: Sequence[int] | None) -> Sequence[int]:
    if sizes is None:
        if total % ranks:
            raise ImpossibleError(f"{total} tokens do not divide among {ranks} ranks")
        return [total // ranks] * ranks
    if len(sizes) != ranks:
        raise ImpossibleError(f"a list of {len(sizes)} sizes for a group of {ranks} ranks")
    _require_rows(total, sizes)
    return sizes


def _require_rows(rows: int, sizes: Sequence[int]) -> None:
    if sum(sizes) != rows:
        raise ImpossibleError(f"sizes add up to {sum(sizes)}, the tensor has {rows} tokens")


def _split(tokens: tuple[Tokens, ...], sizes: Sequence[int]) -> list[tuple[Tokens, ...]]:
    """The tokens of consecutive chunks."""
    left = list(reversed(tokens))
    chunks = []
    for size in sizes:
        chunk: list[Tokens] = []
        missing = size
        while missing and left:
            owner, start, stop = left.pop()
            taken = min(missing, stop - start)
            chunk.append(Tokens(owner, start, start + taken))
            if start + taken < stop:
                left.append(Tokens(owner, start + taken, stop))
            missing -= taken
        chunks.append(tuple(chunk))
    return chunks


def _cut(held: Held, start: int, stop: int) -> Held:
    """Rows `start` to `stop` of a tensor of several runs."""
    runs: list[Run] = []
    position = 0
    for run in held:
        rows = length((run,))
        low, high = max(start - position, 0), min(stop - position, rows)
        if low < high:
            chunk = _split(run.tokens, (low, high - low))[1]
            runs.append(Run(chunk, run.counts, run.mixed))
        position += rows
    return tuple(runs)


def _sum(tensors: Sequence[Held]) -> Held:
    """The elementwise sum, under the first tensor's tokens; `mixed` where the others' differ."""
    first = tensors[0]
    if all(same_tokens(first, other) for other in tensors):
        return tuple(
            Run(runs[0].tokens, sum([run.counts for run in runs]), _mixed(runs))
            for runs in zip(*tensors, strict=True)
        )
    lengths = sorted({length(tensor) for tensor in tensors})
    if len(lengths) > 1:
        raise ImpossibleError(f"ranks of one group bring {' or '.join(map(str, lengths))} tokens")
    # different tokens are in the same place: what each row sums up no longer has one meaning
    counts = sum([tensor[0].counts for tensor in tensors])
    return (Run(tuple(piece for run in first for piece in run.tokens), counts, mixed=True),)


def _mixed(held: Held) -> bool:
    return any(run.mixed for run in held)


def _named_as(own: Held, total: Held) -> Held:
    """A sum of different tokens under the names that one rank has for its rows."""
    tokens = tuple(piece for run in own for piece in run.tokens)
    return (Run(tokens, total[0].counts, mixed=True),)


def joined(tokens: tuple[Tokens, ...], more: tuple[Tokens, ...]) -> tuple[Tokens, ...]:
    """One after the other; where the second goes on with the first's last tokens, as one."""
    if tokens and more and tokens[-1].owner == more[0].owner and tokens[-1].stop == more[0].start:
        return (*tokens[:-1], Tokens(more[0].owner, tokens[-1].start, more[0].stop), *more[1:])
    return tokens + more


def _merged(runs: Iterable[Run]) -> Iterator[Run]:
    """Neighbouring runs with equal counts as one."""
    current: Run | None = None
    for run in runs:
        if current is None or current[1:] != run[1:]:
            if current is not None:
                yield current
            current = run
        else:
            current = Run(joined(current.tokens, run.tokens), run.counts, run.mixed)
    if current is not None:
        yield current
