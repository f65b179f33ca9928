"""Partial sums that can be told apart: which rank's contribution, of which producer, how often.

A producer (one layer's experts, one row-parallel linear) owns a slot of the hidden dimension: one
entry a rank, and one for the mark of the token it worked on. What rank r contributes is a one at
entry r, so that after any sequence of sums, gathers and copies the hidden state itself says how
often each contribution is in it. Slot 0 starts with the token's own mark.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

HIDDEN_SIZE = 1024


def embed(ids: torch.Tensor) -> torch.Tensor:
    """Where tokens start: each with its own mark, complete on every rank that has the token."""
    hidden = torch.zeros((ids.shape[0], HIDDEN_SIZE))
    hidden[:, 0] = ids.to(hidden.dtype)
    return hidden


def project(x: torch.Tensor, width: int) -> torch.Tensor:
    """What a linear that every rank has whole makes of `x`.

    Zeros, such as a gate's logits; but hidden states side by side (a draft's input: the token's
    and the target's) become one again, their mean.
    """
    parts = x.shape[-1] // HIDDEN_SIZE
    if width == HIDDEN_SIZE and parts > 1 and x.shape[-1] == parts * HIDDEN_SIZE:
        return x.reshape(*x.shape[:-1], parts, HIDDEN_SIZE).mean(dim=-2)
    return torch.zeros((*x.shape[:-1], width), dtype=x.dtype)


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
    `[tokens, ranks]`; `worked_on[name]` is `[tokens]`, the sum of the marks that the contributions
    were made from; `shards[name]` is (this rank's shard, number of shards), of producers that ran
    here; `slots` numbers all producers.
    """

    marks: torch.Tensor
    found: torch.Tensor
    counts: dict[str, torch.Tensor]
    worked_on: dict[str, torch.Tensor]
    shards: dict[str, tuple[int, int]]
    slots: dict[str, int]


@dataclass(kw_only=True)
class Witness:
    """One rank's producers; `watch` gives each a slot that is the same on all ranks."""

    rank: int
    world_size: int
    names: dict[int, str] = field(default_factory=dict)
    slots: dict[str, int] = field(default_factory=dict)
    producers: dict[int, Producer] = field(default_factory=dict)
    _whole: list[Producer] = field(default_factory=list)

    def watch(self, model: torch.nn.Module, slots: Mapping[str, int] | None = None) -> None:
        """Number the model's modules that may contribute; `slots` are numbers given before.

        Raises when there is no room.
        """
        self.producers.clear()
        self._whole.clear()
        self.slots = dict(slots or {})
        self.names = {}
        for name, module in model.named_modules():
            if _may_contribute(module):
                self.names[id(module)] = name
                self.slots.setdefault(name, len(self.slots) + 1)
        if (len(self.slots) + 1) * self._stride > HIDDEN_SIZE:
            raise ValueError(f"{len(self.slots)} producers on {self.world_size} ranks: no room")

    def partial(
        self,
        owner: object,
        *,
        shard: int,
        shards: int,
        tokens: int,
        marks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What this rank's part of `owner` contributes; `marks` are those of its input's tokens."""
        name = self.names[id(owner)]
        slot = self.slots[name] * self._stride
        producer = Producer(name=name, slot=slot, shard=shard, shards=shards)
        self.producers[id(owner)] = producer
        return self._contribution(producer, tokens=tokens, marks=marks)

    def whole(self, name: str, *, marks: torch.Tensor) -> torch.Tensor:
        """What a rank contributes that computes all of something; numbered in order of calls."""
        slot = HIDDEN_SIZE // self._stride - 1 - len(self._whole)
        producer = Producer(
            name=f"{name} {len(self._whole)}", slot=slot * self._stride, shard=0, shards=1
        )
        self._whole.append(producer)
        return self._contribution(producer, tokens=len(marks), marks=marks)

    @property
    def _stride(self) -> int:
        return self.world_size + 1

    def _contribution(
        self, producer: Producer, *, tokens: int, marks: torch.Tensor | None
    ) -> torch.Tensor:
        output = torch.zeros((tokens, HIDDEN_SIZE), dtype=torch.float32)
        output[:, producer.slot + self.rank] = 1
        if marks is not None:
            output[:, producer.slot + self.world_size] = marks.to(output.dtype)
        return output

    def read(self, hidden: torch.Tensor, marks: torch.Tensor) -> Seen:
        """The counts in the final hidden states of this rank's tokens."""
        # a rank without tokens may come back with another type of none
        hidden = hidden.float()
        mine = (*self.producers.values(), *self._whole)
        places = {name: slot * self._stride for name, slot in self.slots.items()}
        places |= {p.name: p.slot for p in self._whole}
        return Seen(
            marks=marks,
            found=hidden[:, 0],
            counts={n: hidden[:, at : at + self.world_size] for n, at in places.items()},
            worked_on={n: hidden[:, at + self.world_size] for n, at in places.items()},
            shards={p.name: (p.shard, p.shards) for p in mine},
            slots=dict(self.slots),
        )


def _may_contribute(module: torch.nn.Module) -> bool:
    """Experts and row-parallel linears: what divides a sum's terms over ranks."""
    name = type(module).__name__
    return "RowParallel" in name or hasattr(module, "moe_ep_rank")
