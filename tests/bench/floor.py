"""A case's collectives, expert and reference arithmetic, without the layer around them.

Run in rank processes.
"""

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor

from gpu_tests.block import MoEBlock
from gpu_tests.cases import Case
from gpu_tests.mlp import SwiGLU
from gpu_tests.ranks import Group, Ranks, all_gather_into, reduce_scatter_into
from gpu_tests.reference import PreparationError, model
from gpu_tests.tokens import token_plan
from gpu_tests.work import block_of, every_group, mlp_of, reference_of, run_case, shards_of

# what was asked for: its name, the tensor's shape, and what else the call takes
Call = tuple[str, tuple[int, ...], torch.dtype, Any]


class Recorder(Ranks):
    """Ranks that also write down what they are asked for."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(**vars(ranks))
        self.calls: list[Call] = []

    def all_reduce(self, tensor: Tensor, group: Group) -> Tensor:
        self._note("all_reduce", tensor, group)
        return super().all_reduce(tensor, group)

    def all_gather(self, tensor: Tensor, group: Group, rows: Sequence[int]) -> Tensor:
        self._note("all_gather", tensor, group, tuple(rows))
        return super().all_gather(tensor, group, rows)

    def reduce_scatter(self, tensor: Tensor, group: Group, rows: Sequence[int]) -> Tensor:
        if len(rows) == len(group):
            self._note("reduce_scatter", tensor, group, tuple(rows))
        return super().reduce_scatter(tensor, group, rows)

    def all_to_all(
        self, tensor: Tensor, group: Group, *, to: Sequence[int], of: Sequence[int]
    ) -> Tensor:
        self._note("all_to_all", tensor, group, tuple(to), tuple(of))
        return super().all_to_all(tensor, group, to=to, of=of)

    def _note(self, what: str, tensor: Tensor, group: Group, *more: tuple[int, ...]) -> None:
        if len(group) > 1:
            self.calls.append((what, tuple(tensor.shape), tensor.dtype, (group, *more)))


def record(ranks: Ranks, case: Case) -> list[Call]:
    """The collectives and the experts' calls of one case on this rank."""
    recorder = Recorder(ranks)
    routed, mlp = MoEBlock.routed, SwiGLU.forward

    def note_routed(block: MoEBlock, x: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        recorder.calls.append(("routed", tuple(x.shape), x.dtype, ids.tolist()))
        return routed(block, x, ids, weights)

    def note_mlp(self: SwiGLU, x: Tensor) -> Tensor:
        recorder.calls.append(("mlp", tuple(x.shape), x.dtype, None))
        return mlp(self, x)

    with patch.object(MoEBlock, "routed", note_routed), patch.object(SwiGLU, "forward", note_mlp):
        run_case(recorder, case)
    return recorder.calls


def _collective(ranks: Ranks, what: str, tensor: Tensor, extra: Any) -> None:
    """The backend's own call; what it has none for (uneven rows) as `Ranks` composes it."""
    group, *rows = extra
    handle = ranks.handle(group)
    if what == "all_reduce":
        dist.all_reduce(tensor, group=handle)
    elif len(set(rows[0])) > 1:
        getattr(ranks, what)(tensor, *extra)
    elif what == "all_gather":
        whole = tensor.new_empty(len(tensor) * len(group), *tensor.shape[1:])
        all_gather_into(whole, tensor, group=handle)
    else:
        own = tensor.new_empty(len(tensor) // len(group), *tensor.shape[1:])
        reduce_scatter_into(own, tensor, group=handle)


@torch.inference_mode()
def replay(ranks: Ranks, item: tuple[Case, list[list[Call]]]) -> None:
    """The calls alone, after the reference; the item holds every rank's."""
    case, calls = item
    ranks.open_groups(every_group(case.deployment.layout))
    dtype = getattr(torch, case.dtype)
    shards = shards_of(case)
    try:
        world = model(case.spec, dtype, shards)
        attention = case.deployment.config.attn_tp_size
        reference_of(world, token_plan(case.deployment).total, attention)
    except PreparationError:
        return
    shard = shards[ranks.rank]
    if case.dense:
        block, mlp = None, mlp_of(case.spec, dtype, shard, ranks.device)
    else:
        block = block_of(case.spec, dtype, shard, ranks.device)
        mlp = block.shared_experts
    for what, shape, wide, extra in calls[ranks.rank]:
        tensor = torch.zeros(shape, dtype=wide, device=ranks.device)
        match what:
            case "routed":
                assert block is not None  # a dense MLP has no experts
                ids = torch.tensor(extra, dtype=torch.long, device=ranks.device)
                ids = ids.reshape(len(extra), case.spec.top_k)
                block.routed(tensor, ids, torch.ones_like(ids, dtype=wide))
            case "mlp":
                assert mlp is not None  # it was called
                mlp(tensor)
            case "all_to_all":
                group, to, of = extra
                ranks.all_to_all(tensor, group, to=to, of=of)
            case _:
                _collective(ranks, what, tensor, extra)
    if ranks.device.type == "cuda":
        # as a case waits for its answer
        torch.cuda.synchronize(ranks.device)
