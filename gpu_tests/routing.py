"""Which experts a token goes to and with what weight: softmax or sigmoid, grouped or not.

Written from the public descriptions of the models' routers; `margin` tells how far a token is
from being routed differently, so that rounding never decides a comparison.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gpu_tests.rounding import SIGMOID_SLOPE
from gpu_tests.specs import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Routing:
    """`ids` [tokens, top_k] of global experts, `weights` of the same shape, `margin` [tokens].

    The margin is the smallest gap between what was chosen and what was not, and `slope` [tokens]
    how fast that gap can move with one logit: of scores, or of the logits themselves where nothing
    but their order decides (softmax alone saturates, and its order does not).
    """

    ids: Tensor
    weights: Tensor
    margin: Tensor
    slope: Tensor


def route(logits: Tensor, bias: Tensor | None, spec: ModelSpec) -> Routing:
    """Choose `spec.top_k` of the experts for each row of `logits` [tokens, experts]."""
    scores = logits.softmax(-1) if spec.scoring == "softmax" else logits.sigmoid()
    by_order = spec.scoring == "softmax" and bias is None and spec.groups == 1
    choice = logits if by_order else scores if bias is None else scores + bias
    margin = choice.new_full((len(choice),), float("inf"))
    if spec.groups > 1:
        choice, margin = _keep_best_groups(choice, spec)
    best = choice.topk(min(spec.top_k + 1, spec.experts), dim=-1)
    if spec.top_k < spec.experts:
        gap = best.values[:, spec.top_k - 1] - best.values[:, spec.top_k]
        margin = torch.minimum(margin, gap)
    ids = best.indices[:, : spec.top_k]
    weights = scores.gather(1, ids)
    if spec.renormalise:
        weights = weights / weights.sum(-1, keepdim=True)
    slope = torch.ones_like(margin)
    if not by_order:
        slope = scores.amax(-1) if spec.scoring == "softmax" else slope * SIGMOID_SLOPE
    return Routing(ids=ids, weights=weights * spec.routed_scaling, margin=margin, slope=slope)


def _keep_best_groups(choice: Tensor, spec: ModelSpec) -> tuple[Tensor, Tensor]:
    """Choice scores with the losing groups at minus infinity, and the gap between the groups."""
    grouped = choice.view(len(choice), spec.groups, spec.experts // spec.groups)
    # groups compete by the sum of their two best experts (DeepSeek-V3's rule)
    strength = grouped.topk(min(2, grouped.shape[-1]), dim=-1).values.sum(-1)
    best = strength.topk(min(spec.group_top_k + 1, spec.groups), dim=-1)
    gap = best.values[:, spec.group_top_k - 1] - best.values[:, -1]
    kept = torch.zeros_like(strength).scatter(1, best.indices[:, : spec.group_top_k], 1.0)
    losing = (kept == 0).unsqueeze(-1).expand_as(grouped)
    return grouped.masked_fill(losing, float("-inf")).reshape(choice.shape), gap
