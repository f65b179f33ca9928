"""What a layer's MLP does before its own reductions: bring tokens to weights, compute, bring back.

Each is given hidden states [rows, H + 1], token ids last, and returns [rows, H + counts]: values
with the witness of whose partial sums are in them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gpu_tests.block import MoEBlock, expert_ranges
from gpu_tests.kernels import Routed
from gpu_tests.mlp import SwiGLU
from gpu_tests.ranks import Ranks
from gpu_tests.routing import Routing
from gpu_tests.witness import Witness
from verify.parallel.layout import Layout

Producer = Callable[[Tensor], Tensor]
Dispatch = Callable[["MoE", Tensor, Routing], Tensor]


@dataclass(frozen=True, kw_only=True)
class Dense:
    """A dense MLP, or this rank's slice of one."""

    mlp: SwiGLU
    witness: Witness
    rank: int

    def __call__(self, states: Tensor) -> Tensor:
        """The MLP on every row."""
        ids, x = _split(states)
        marks = self.witness.marks(ids, "routed", rank=self.rank, dtype=x.dtype)
        return torch.cat([self.mlp(x), marks], 1)


@dataclass(frozen=True, kw_only=True)
class MoE:
    """Router, experts and shared experts. `dispatch` brings rows to experts and back.

    `rows` are those of every attention group, in order; `routed` computes the experts held here.
    """

    ranks: Ranks
    layout: Layout
    block: MoEBlock
    witness: Witness
    rows: tuple[int, ...]
    routed: Routed
    dispatch: Dispatch

    def __call__(self, states: Tensor) -> Tensor:
        """The block on every row, before its own reductions."""
        out = self.routed_rows(states)
        return out if self.block.shared_experts is None else out + self.shared_rows(states)

    def routed_rows(self, states: Tensor) -> Tensor:
        """The routed experts' part of it."""
        _, x = _split(states)
        return self.dispatch(self, states, self.block.choose(x))

    def shared_rows(self, states: Tensor) -> Tensor:
        """The shared experts' part of it, in a model that has them."""
        self.ranks.say("shared experts")
        ids, x = _split(states)
        shared = self.block.shared(x)
        assert shared is not None
        marks = self.witness.marks(ids, "shared", rank=self.ranks.rank, dtype=x.dtype)
        return torch.cat([shared, marks], 1)

    def own_experts(self, states: Tensor, choice: Tensor) -> Tensor:
        """The experts held here on [rows, H + 1], routed as in `choice` (`_packed`)."""
        self.ranks.say("experts")
        ids, x = _split(states)
        weights, experts = choice.chunk(2, dim=1)
        marks = self.witness.marks(ids, "routed", rank=self.ranks.rank, dtype=x.dtype)
        return torch.cat([self.routed(x, experts.long(), weights), marks], 1)


def standard(moe: MoE, states: Tensor, choice: Routing) -> Tensor:
    """`layers/moe/token_dispatcher/standard.py`: a rank computes on the rows that it has."""
    return moe.own_experts(states, _packed(choice))


def fp4_all_gather(moe: MoE, states: Tensor, choice: Routing) -> Tensor:
    """The same file under FI: all rows on all ranks, and own rows of the sum.

    Rows travel as they are; upstream's are FP4.
    """
    world = moe.layout.tp[0]
    everyone = moe.ranks.all_gather(states, world, moe.rows)
    choices = moe.ranks.all_gather(_packed(choice), world, moe.rows)
    return moe.ranks.reduce_scatter(moe.own_experts(everyone, choices), world, moe.rows)


def all_to_all(moe: MoE, states: Tensor, choice: Routing) -> Tensor:
    """`layers/moe/token_dispatcher/deepep.py`, as the normal mode does it.

    A row goes once to every rank that holds one of its experts, comes back as the weighted sum of
    that rank's experts, and its owner adds up what came back.
    """
    group = moe.layout.ep[0]
    asked = _rows_for_each(choice.ids, moe.block.spec.experts, len(group))
    to = [len(rows) for rows in asked]
    of = moe.ranks.tell(to, group)
    order = torch.cat(asked)
    there = moe.ranks.all_to_all(states[order], group, to=to, of=of)
    choices = moe.ranks.all_to_all(_packed(choice)[order], group, to=to, of=of)
    back = moe.ranks.all_to_all(moe.own_experts(there, choices), group, to=of, of=to)
    return _nothing_owed(moe, states, asked).index_add(0, order, back)


DISPATCHES: Mapping[str, Dispatch] = {
    "experts": standard,
    "FP4 all-gather": fp4_all_gather,
    "all-to-all": all_to_all,
    # `layers/moe/dwdp` (0.5.23) fetches every expert's weights: nothing of the rows travels
    "fetched experts": standard,
}


def _rows_for_each(ids: Tensor, experts: int, ranks: int) -> list[Tensor]:
    """For each rank, the rows that have an expert there; `ids` [rows, top_k]."""
    return [
        ((ids >= owned.start) & (ids < owned.stop)).any(1).nonzero()[:, 0]
        for owned in expert_ranges(experts, ranks)
    ]


def _nothing_owed(moe: MoE, states: Tensor, asked: list[Tensor]) -> Tensor:
    """Zeros [rows, H + counts] that count the ranks which have no expert of a row.

    Their partial sums are empty, and an empty sum is in every total.
    """
    ids, x = _split(states)
    marks = []
    for rank, rows in enumerate(asked):
        unasked = ids.clone()
        unasked[rows] = 0
        marks.append(moe.witness.marks(unasked, "routed", rank=rank, dtype=x.dtype))
    return torch.cat([torch.zeros_like(x), torch.stack(marks).sum(0)], 1)


def _packed(choice: Routing) -> Tensor:
    """[rows, 2 * top_k]: weights, then experts."""
    return torch.cat([choice.weights, choice.ids.to(choice.weights)], 1)


def _split(states: Tensor) -> tuple[Tensor, Tensor]:
    """Token ids [rows] and hidden states [rows, H]."""
    return states[:, -1].long(), states[:, :-1].contiguous()
