"""What a rank does with one case: two layers, witness and values, and its verdict."""

from dataclasses import replace
from functools import lru_cache, partial

import torch
from torch import Tensor

from gpu_tests.block import MoEBlock, Shard, dense_weights, whole_weights
from gpu_tests.cases import Case
from gpu_tests.judge import RankVerdict, judge_rank
from gpu_tests.kernels import Routed, flashinfer_experts, fused_norm
from gpu_tests.layer import Layer
from gpu_tests.mlp import SwiGLU
from gpu_tests.planned import PlannedCase, planned_shards
from gpu_tests.planned_layer import PlannedLayer
from gpu_tests.producers import DISPATCHES, Dense, MoE, Producer
from gpu_tests.ranks import Group, Ranks, StepError, group_of
from gpu_tests.reference import Inputs, Model, PreparationError, Truth, draw_inputs, model
from gpu_tests.specs import ModelSpec
from gpu_tests.tokens import TokenPlan, token_plan
from gpu_tests.witness import Witness
from verify.parallel.layout import Layout


@torch.inference_mode()
def run_case(ranks: Ranks, case: Case) -> RankVerdict:
    """Two layers in a row on this rank. All ranks call it with the same case."""
    ranks.say("preparing weights and reference")
    ranks.open_groups(every_group(case.deployment.layout))
    dtype = getattr(torch, case.dtype)
    plan = token_plan(case.deployment)
    shards = shards_of(case)
    world = model(case.spec, dtype, shards)
    try:
        inputs, truth = reference_of(world, plan.total, case.deployment.config.attn_tp_size)
    except PreparationError as error:
        # every rank draws the same: none of them goes on alone
        return RankVerdict(kind="not prepared", why=str(error))
    fuses = case.kernels.norm == "flashinfer" and case.deployment.fusion == "flashinfer"
    kernel = fused_norm(ranks) if fuses else None
    calls = kernel.calls if kernel else 0
    built = (
        partial(PlannedLayer, case=case)
        if isinstance(case, PlannedCase)
        else partial(Layer, case=case)
    )
    layer = built(
        ranks=ranks,
        plan=plan,
        produce=_producer(ranks, case, plan, shards[ranks.rank]),
        norm_weight=world.norm.to(ranks.device, dtype),
        fused_norm=kernel,
    )
    ids = plan.ids[ranks.rank // case.deployment.config.attn_tp_size]
    try:
        attended, total = first_layer(layer, ids, inputs)
    except StepError as error:
        return RankVerdict(kind="crash", why=str(error))
    try:
        final = second_layer(layer.last, ids, attended, total, world)
    except StepError:
        # the verdict is on the first layer; the second only confirms its values
        final = None
    total = layer.to_attention(total)
    ranks.say("judging")
    verdict = judge_rank(ids=ids, total=total, final=final, truth=truth, shards=shards)
    return replace(verdict, fused_norm=kernel is not None and kernel.calls > calls)


def first_layer(layer: Layer, ids: tuple[int, ...], inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Attention's input in the next layer [rows, H] and the completed residual [share, H + counts].

    The second has this layer's witness columns: what is asked of them is asked after the step of
    the next layer that may complete the sum.
    """
    place, _ = _attention_place(layer)
    states, residual = layer.prepare_mlp(
        torch.cat([_rows_of(layer, ids, inputs.parts[place]), _marks(layer, ids)], 1),
        layer.share(_rows_of(layer, ids, inputs.residual)),
    )
    announced = layer.case.flags["AF"]
    out = layer.forward(states, announced=announced)
    if not announced:
        out = layer.postprocess(out)
    return layer.prepare_attn(out, residual, announced=announced)


def second_layer(
    layer: Layer, ids: tuple[int, ...], attended: Tensor, total: Tensor, world: Model
) -> Tensor:
    """The same block again, as the last layer: its completed residual [rows, H + counts]."""
    width = attended.shape[1]
    place, size = _attention_place(layer)
    heads = Shard(tp_rank=place, tp_size=size).width(width)
    weight = world.attention.to(layer.ranks.device, attended.dtype)
    partial = attended[:, heads] @ weight[:, heads].T
    states, residual = layer.prepare_mlp(
        torch.cat([partial, _marks(layer, ids)], 1), total[:, :width]
    )
    out = layer.postprocess(layer.forward(states, announced=False))
    return layer.to_attention(torch.cat([out[:, :width] + residual, out[:, width:]], 1))


def _attention_place(layer: Layer) -> tuple[int, int]:
    """This rank's place in its attention-TP group, and the group's size."""
    group = group_of(layer.case.deployment.layout.attn_tp, layer.ranks.rank)
    return group.index(layer.ranks.rank), len(group)


def _marks(layer: Layer, ids: tuple[int, ...]) -> Tensor:
    """The column of token ids, which must come out of attention's sum once: rank 0 brings it."""
    column = torch.tensor(ids, dtype=layer.norm_weight.dtype, device=layer.ranks.device)
    return column.unsqueeze(1) * (_attention_place(layer)[0] == 0)


def _rows_of(layer: Layer, ids: tuple[int, ...], whole: Tensor) -> Tensor:
    """The rows of `ids` of all tokens' rows, zeros for padding."""
    rows = whole.new_zeros(len(ids), whole.shape[1])
    real = [row for row, token in enumerate(ids) if token]
    rows[real] = whole[[ids[row] - 1 for row in real]]
    return rows.to(layer.ranks.device, layer.norm_weight.dtype)


def every_group(layout: Layout) -> list[Group]:
    """The groups of a layout, the same list on every rank."""
    kinds = (layout.ep, layout.moe_tp, layout.attn_tp, layout.attn_cp)
    return list(dict.fromkeys(group for kind in kinds for group in kind))


@lru_cache(maxsize=256)
def _shards(layout: Layout, shared_size: int) -> tuple[Shard, ...]:
    return tuple(
        Shard(
            ep_rank=group_of(layout.ep, rank).index(rank),
            ep_size=layout.config.ep_size,
            tp_rank=group_of(layout.moe_tp, rank).index(rank),
            tp_size=layout.config.moe_tp_size,
            shared_rank=rank if shared_size > 1 else 0,
            shared_size=shared_size,
        )
        for rank in range(layout.world_size)
    )


def shards_of(case: Case) -> tuple[Shard, ...]:
    """Every rank's shard: a dense MLP and shared experts are cut over all ranks or held whole."""
    if isinstance(case, PlannedCase):
        return planned_shards(case)
    ranks = case.deployment.config.tp_size
    if case.producer == "whole dense MLP":
        return (Shard(),) * ranks
    if case.dense:
        return tuple(Shard(tp_rank=rank, tp_size=ranks) for rank in range(ranks))
    whole = case.deployment.shared == "replicated"
    return _shards(case.deployment.layout, 1 if whole else ranks)


def _producer(ranks: Ranks, case: Case, plan: TokenPlan, shard: Shard) -> Producer:
    """The MLP of this rank."""
    witness = Witness(tokens=plan.total, ranks=ranks.size)
    dtype = getattr(torch, case.dtype)
    if case.dense:
        mlp = mlp_of(case.spec, dtype, shard, ranks.device)
        return Dense(mlp=mlp, witness=witness, rank=ranks.rank)
    block = block_of(case.spec, dtype, shard, ranks.device)
    return MoE(
        ranks=ranks,
        layout=case.deployment.layout,
        block=block,
        witness=witness,
        rows=plan.rows,
        routed=_flashinfer_experts(block, shard)
        if case.kernels.experts == "flashinfer"
        else block.routed,
        dispatch=DISPATCHES[case.producer],
    )


@lru_cache(maxsize=512)
def reference_of(world: Model, tokens: int, attention_ranks: int) -> tuple[Inputs, Truth]:
    """What goes in and what must come out, on one rank in float64."""
    return draw_inputs(world, tokens=tokens, attention_ranks=attention_ranks)


@lru_cache(maxsize=512)
def block_of(spec: ModelSpec, dtype: torch.dtype, shard: Shard, device: torch.device) -> MoEBlock:
    """A rank's block on its device."""
    return MoEBlock(spec, whole_weights(spec).to(dtype), shard).to(device)


@lru_cache(maxsize=64)
def mlp_of(spec: ModelSpec, dtype: torch.dtype, shard: Shard, device: torch.device) -> SwiGLU:
    """A rank's dense MLP on its device."""
    width = shard.width(spec.intermediate)
    return SwiGLU(dense_weights(spec).to(dtype), width).to(device)


@lru_cache(maxsize=512)
def _flashinfer_experts(block: MoEBlock, shard: Shard) -> Routed:
    return flashinfer_experts(block, shard)
