"""Ranks in one process: a thread each, collectives over torch tensors, and no silent hang.

Ranks take turns: one runs until it waits in a collective, then the next. So a run is
deterministic, sums are added in rank order, and a collective that can never complete is seen at
once, not after a time limit; the limit is for a rank that computes without end.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch

Group = tuple[int, ...]
Result = TypeVar("Result")
_LOCAL = threading.local()
_Combine = Callable[[list[torch.Tensor]], list[torch.Tensor]]


class RanksError(Exception):
    """A run that did not finish; the message says which rank, where, and what it waited for.

    `kind` is `crash` (a rank raised, or ranks called one collective with different arguments) or
    `hang` (a collective that not all of its group will enter, or a rank that never came back).
    """

    def __init__(self, kind: Literal["crash", "hang"], message: str) -> None:
        super().__init__(message)
        self.kind = kind


class _Stopped(BaseException):
    """Unwinds a rank's thread once the run has failed elsewhere; no `except Exception` sees it."""


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    """One rank's entry into a collective; `terms` must be equal on all ranks of the group."""

    operation: str
    group: Group
    terms: tuple[object, ...]
    tensor: torch.Tensor
    combine: _Combine

    def __str__(self) -> str:
        terms = "".join(f", {term}" for term in self.terms)
        return f"{self.operation}(shape {tuple(self.tensor.shape)}{terms}) over ranks {self.group}"


def run_ranks(
    body: Callable[["Rank"], Result], *, world_size: int, time_limit: float = 30.0
) -> list[Result]:
    """Run `body` once a rank and return the results in rank order.

    `time_limit` is in seconds, for each stretch that a rank computes between two collectives.
    Raises `RanksError`; a rank's own exception is its cause.
    """
    return _World(world_size=world_size, time_limit=time_limit).run(body)


def current_rank() -> "Rank":
    """The rank whose thread this is. Raises LookupError outside `run_ranks`."""
    rank: Rank | None = getattr(_LOCAL, "rank", None)
    if rank is None:
        raise LookupError("no rank runs on this thread: call from a body given to run_ranks")
    return rank


class Rank:
    """One rank's view of the world: who it is, and the collectives it can enter.

    Every collective returns a new tensor and leaves its input alone; `group` lists ranks, None
    stands for all of them. Tokens are dimension 0.
    """

    def __init__(self, world: "_World", rank: int) -> None:
        self._world = world
        self.rank = rank
        self.world_size = world.size

    def all_reduce(self, tensor: torch.Tensor, *, group: Group | None = None) -> torch.Tensor:
        """The sum over the group, on every rank of it."""
        return self._enter("all_reduce", tensor, group, lambda t: _copies(_sum(t), len(t)))

    def reduce_scatter(self, tensor: torch.Tensor, *, group: Group | None = None) -> torch.Tensor:
        """The rank's even share, by tokens, of the sum over the group."""
        ranks = self._members(group)
        if tensor.shape[0] % len(ranks):
            raise RanksError(
                "crash",
                f"rank {self.rank}: reduce_scatter of {tensor.shape[0]} tokens "
                f"over {len(ranks)} ranks {ranks}: not an even share",
            )
        share = tensor.shape[0] // len(ranks)
        return self._enter(
            "reduce_scatter", tensor, ranks, lambda t: _split(_sum(t), [share] * len(ranks))
        )

    def reduce_scatterv(
        self, tensor: torch.Tensor, *, sizes: Sequence[int], group: Group | None = None
    ) -> torch.Tensor:
        """The rank's share of the sum over the group; `sizes` are tokens a rank, in group order."""
        ranks, shares = self._members(group), tuple(sizes)
        self._require_sizes("reduce_scatterv", shares, ranks, total=tensor.shape[0])
        return self._enter(
            "reduce_scatterv", tensor, ranks, lambda t: _split(_sum(t), shares), ("sizes", shares)
        )

    def all_gather(self, tensor: torch.Tensor, *, group: Group | None = None) -> torch.Tensor:
        """The group's tensors, one below the other; all have the same shape."""
        return self._enter("all_gather", tensor, group, lambda t: _copies(torch.cat(t), len(t)))

    def all_gatherv(
        self, tensor: torch.Tensor, *, sizes: Sequence[int], group: Group | None = None
    ) -> torch.Tensor:
        """Like `all_gather` with `sizes[i]` tokens from the group's i-th rank."""
        ranks, shares = self._members(group), tuple(sizes)
        self._require_sizes("all_gatherv", shares, ranks, mine=tensor.shape[0])
        return self._enter(
            "all_gatherv",
            tensor,
            ranks,
            lambda t: _copies(torch.cat(t), len(t)),
            ("sizes", shares),
            uneven=True,
        )

    def broadcast(
        self, tensor: torch.Tensor, *, source: int, group: Group | None = None
    ) -> torch.Tensor:
        """The tensor of the group's `source`-th rank, on every rank of it."""
        return self._enter(
            "broadcast", tensor, group, lambda t: _copies(t[source], len(t)), ("source", source)
        )

    def _members(self, group: Group | None) -> Group:
        return tuple(range(self.world_size)) if group is None else tuple(group)

    def _require_sizes(
        self,
        operation: str,
        sizes: tuple[int, ...],
        ranks: Group,
        *,
        total: int | None = None,
        mine: int | None = None,
    ) -> None:
        problem = None
        if len(sizes) != len(ranks):
            problem = f"{len(sizes)} sizes for {len(ranks)} ranks {ranks}"
        elif total is not None and sum(sizes) != total:
            problem = f"sizes {sizes} do not add up to {total} tokens"
        elif mine is not None and self.rank in ranks and sizes[ranks.index(self.rank)] != mine:
            problem = f"sizes {sizes} do not give this rank's {mine} tokens"
        if problem:
            raise RanksError("crash", f"rank {self.rank}: {operation}: {problem}")

    def _enter(
        self,
        operation: str,
        tensor: torch.Tensor,
        group: Group | None,
        combine: _Combine,
        *terms: object,
        uneven: bool = False,
    ) -> torch.Tensor:
        ranks = self._members(group)
        if self.rank not in ranks:
            raise RanksError(
                "crash", f"rank {self.rank}: {operation} over ranks {ranks}, which it is not one of"
            )
        shape = tuple(tensor.shape[1:]) if uneven else tuple(tensor.shape)
        # a copy: the caller may overwrite its tensor once this rank goes on
        entry = _Waiting(
            operation=operation,
            group=ranks,
            terms=(shape, str(tensor.dtype), *terms),
            tensor=tensor.detach().clone(),
            combine=combine,
        )
        return self._world.wait(self.rank, entry)


class _World:
    """Hands the turn round and completes collectives; `_turns[r]` is set while rank r may run."""

    def __init__(self, *, world_size: int, time_limit: float) -> None:
        self.size = world_size
        self._time_limit = time_limit
        self._turns = [threading.Event() for _ in range(world_size)]
        self._over = threading.Event()
        self._moved = threading.Condition()
        self._since = time.monotonic()
        self._running = 0
        self._waiting: dict[int, _Waiting] = {}
        self._ready: dict[int, torch.Tensor] = {}
        self._finished: dict[int, object] = {}
        self._failure: RanksError | None = None

    def run(self, body: Callable[[Rank], Result]) -> list[Result]:
        """Start the ranks' threads, give rank 0 the turn, wait for the end."""
        results: dict[int, Result] = {}

        def main(rank: int) -> None:
            try:
                self._await_turn(rank)
                _LOCAL.rank = Rank(self, rank)
                results[rank] = body(_LOCAL.rank)
                self._finished[rank] = True
                self._pass_turn()
            except _Stopped:
                return
            except RanksError as failure:
                self._fail(failure)
            except BaseException as error:
                self._fail(_crash_of(rank, error))

        threads = [
            threading.Thread(target=main, args=(rank,), name=f"rank {rank}", daemon=True)
            for rank in range(self.size)
        ]
        for thread in threads:
            thread.start()
        self._turns[0].set()
        self._watch()
        if self._failure is not None:
            raise self._failure
        return [results[rank] for rank in range(self.size)]

    def wait(self, rank: int, entry: _Waiting) -> torch.Tensor:
        """Enter a collective; returns this rank's share of the result."""
        self._waiting[rank] = entry
        self._complete(entry.group)
        self._pass_turn()
        self._await_turn(rank)
        return self._ready.pop(rank)

    def _complete(self, group: Group) -> None:
        entries = [self._waiting.get(rank) for rank in group]
        present = [entry for entry in entries if entry is not None and entry.group == group]
        if len(present) < len(group):
            return
        first = present[0]
        for rank, entry in zip(group, present, strict=True):
            if (entry.operation, entry.terms) != (first.operation, first.terms):
                raise RanksError(
                    "crash", f"rank {group[0]} entered {first}, rank {rank} entered {entry}"
                )
        shares = first.combine([entry.tensor for entry in present])
        for rank, share in zip(group, shares, strict=True):
            del self._waiting[rank]
            self._ready[rank] = share

    def _pass_turn(self) -> None:
        order = [(self._running + step) % self.size for step in range(1, self.size + 1)]
        able = [r for r in order if r not in self._waiting and r not in self._finished]
        self._since = time.monotonic()
        if able:
            self._running = able[0]
            self._turns[able[0]].set()
        elif self._waiting:
            raise RanksError("hang", self._stuck())
        else:
            self._over.set()
            self._wake()

    def _stuck(self) -> str:
        waits = "; ".join(
            f"rank {rank} waits in {entry}" for rank, entry in sorted(self._waiting.items())
        )
        ended = sorted(self._finished)
        return waits + (f"; ranks {ended} have finished" if ended else "")

    def _await_turn(self, rank: int) -> None:
        self._turns[rank].wait()
        self._turns[rank].clear()
        if self._over.is_set():
            raise _Stopped

    def _fail(self, failure: RanksError) -> None:
        if self._failure is None:
            self._failure = failure
        self._over.set()
        for turn in self._turns:
            turn.set()
        self._wake()

    def _wake(self) -> None:
        with self._moved:
            self._moved.notify()

    def _watch(self) -> None:
        """Until the run is over; fails it when one rank keeps the turn past the limit."""
        with self._moved:
            while not self._over.is_set():
                left = self._since + self._time_limit - time.monotonic()
                if left <= 0:
                    break
                self._moved.wait(timeout=left)
            late = not self._over.is_set()
        if late:
            message = f"neither finished nor entered a collective within {self._time_limit:g} s"
            self._fail(RanksError("hang", f"rank {self._running} {message}"))


def _crash_of(rank: int, error: BaseException) -> RanksError:
    crash = RanksError("crash", f"rank {rank}: {type(error).__name__}: {error}")
    crash.__cause__ = error
    return crash


def _sum(tensors: list[torch.Tensor]) -> torch.Tensor:
    total = tensors[0].clone()
    for tensor in tensors[1:]:
        total += tensor
    return total


def _split(tensor: torch.Tensor, sizes: Sequence[int]) -> list[torch.Tensor]:
    return [share.clone() for share in torch.split(tensor, list(sizes))]


def _copies(tensor: torch.Tensor, count: int) -> list[torch.Tensor]:
    return [tensor.clone() for _ in range(count)]
