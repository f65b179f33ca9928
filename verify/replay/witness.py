"""Partial sums that can be told apart: which rank's contribution, of which producer, how often.

A producer (one layer's experts, one row-parallel linear) owns a slot of the hidden dimension, one
entry a rank. What rank r contributes is a one at entry r of the slot, so that after any sequence
of sums, gathers and copies the hidden state itself says how often each contribution is in it.
Slot 0 holds the token's own mark.
"""

from dataclasses import dataclass, field

import torch

HIDDEN_SIZE = 512


@dataclass(frozen=True, kw_only=True)
class Producer:
    """Who leaves partial sums: its slot, and which of `shards` pieces of the work the rank has."""

    name: str
    slot: int
    shard: int
    shards: int


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one rank holds at the end for its own tokens.

    `marks` and `found` are `[tokens]`: the marks it should and does have; `counts[name]` is
    `[tokens, ranks]`; `shards[name]` is (this rank's shard, number of shards).
    """

    marks: torch.Tensor
    found: torch.Tensor
    counts: dict[str, torch.Tensor]
    shards: dict[str, tuple[int, int]]


@dataclass(kw_only=True)
class Witness:
    """One rank's producers, in the order in which they first contributed."""

    rank: int
    world_size: int
    producers: dict[int, Producer] = field(default_factory=dict)

    def partial(
        self, owner: object, *, name: str, shard: int, shards: int, like: torch.Tensor, tokens: int
    ) -> torch.Tensor:
        """What this rank's part of `owner` contributes for `tokens` tokens."""
        producer = self.producers.get(id(owner))
        if producer is None:
            slot = (len(self.producers) + 1) * self.world_size
            producer = Producer(name=name, slot=slot, shard=shard, shards=shards)
            self.producers[id(owner)] = producer
        output = torch.zeros((tokens, HIDDEN_SIZE), dtype=torch.float32, device=like.device)
        output[:, producer.slot + self.rank] = 1
        return output

    def read(self, hidden: torch.Tensor, marks: torch.Tensor) -> Seen:
        """The counts in the final hidden states of this rank's tokens."""
        slots = {p.name: hidden[:, p.slot : p.slot + self.world_size] for p in self._all()}
        return Seen(
            marks=marks,
            found=hidden[:, 0],
            counts=slots,
            shards={p.name: (p.shard, p.shards) for p in self._all()},
        )

    def _all(self) -> list[Producer]:
        return list(self.producers.values())
