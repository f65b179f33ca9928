"""One step of a layer done wrong on purpose. Imported by name in rank processes."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from gpu_tests import producers, work
from gpu_tests.cases import Case
from gpu_tests.judge import RankVerdict
from gpu_tests.layer import Layer
from gpu_tests.producers import MoE
from gpu_tests.ranks import Group, Ranks


def corrupted(ranks: Ranks, item: tuple[str, Case]) -> RankVerdict:
    """`work.run_case` with the named corruption."""
    name, case = item
    if name == "all-to-all combine forgets one rank":
        return work.run_case(Forgetful(ranks), case)
    with CORRUPTIONS[name]():
        return work.run_case(ranks, case)


class Forgetful(Ranks):
    """Ranks that hear nothing from the last: of three exchanges the last brings rows back."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(**vars(ranks))
        self.exchanges = 0

    def all_to_all(
        self, tensor: Tensor, group: Group, *, to: Sequence[int], of: Sequence[int]
    ) -> Tensor:
        received = super().all_to_all(tensor, group, to=to, of=of)
        if tensor.dim() > 1:
            self.exchanges += 1
            if self.exchanges % 3 == 0:
                received[len(received) - of[-1] :] = 0
        return received


def _replaced(owner: Any, name: str, wrong: Callable[..., Any]) -> Callable[[], Any]:
    """A patch of `owner.name`; `wrong` is given the right one first."""

    def start() -> AbstractContextManager[Any]:
        right = getattr(owner, name)
        return patch.object(owner, name, lambda *args, **named: wrong(right, *args, **named))

    return start


def _once_more(right: Any, layer: Layer, states: Tensor, *, announced: bool) -> Tensor:
    out = right(layer, states, announced=announced)
    return layer.ranks.all_reduce(out.clone(), layer.case.deployment.layout.tp[0])


def _not_at_all(right: Any, layer: Layer, states: Tensor, *, announced: bool) -> Tensor:
    del right, announced
    return layer.produce(states)


def _other_order(right: Any, choice: Any) -> Tensor:
    """Weights travel beside the wrong experts: nothing is counted wrong, values are."""
    weights, ids = right(choice).chunk(2, dim=1)
    return torch.cat([weights, ids.roll(1, 1)], 1)


def _next_contexts_rows(right: Any, layer: Layer, whole: Tensor) -> Tensor:
    own = len(right(layer, whole))
    return whole.roll(-own, 0)[layer.ranks.rank * own :][:own]


def _own_share(right: Any, layer: Layer, share: Tensor) -> Tensor:
    """The own rows filled up with copies of the share."""
    return share.repeat(len(right(layer, share)) // len(share), 1)


def _own_context(right: Any, layer: Layer, states: Tensor) -> Tensor:
    """Every context's place filled with the own rows."""
    return states.repeat(len(right(layer, states)) // len(states), 1)


def _owed(right: Any, moe: MoE, states: Tensor, asked: list[Tensor]) -> Tensor:
    """A rank that was not asked counts as lost."""
    return torch.zeros_like(right(moe, states, asked))


CORRUPTIONS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "the MLP reduces once more": _replaced(Layer, "forward", _once_more),
    "the MLP does not reduce": _replaced(Layer, "forward", _not_at_all),
    "all-to-all sends weights beside the wrong experts": _replaced(
        producers, "_packed", _other_order
    ),
    "all-to-all counts nothing for ranks without an expert": _replaced(
        producers, "_nothing_owed", _owed
    ),
    "contexts are not gathered": _replaced(Layer, "_gather_contexts", _own_context),
    "another context's rows are kept": _replaced(Layer, "_own", _next_contexts_rows),
    "shares are not gathered for attention": _replaced(Layer, "to_attention", _own_share),
}
