"""What a plan is asked about: one layer of an engine in one forward pass, in the field's words."""

from dataclasses import dataclass
from typing import Literal

from helper.config import MoeConfig

Group = Literal["none", "tp", "ep", "moe_tp", "attn_tp"]
"""Ranks that sum together, by the names of an engine's process groups; `none`: nobody sums."""

Block = Literal["experts", "dense"]
Next = Literal["norm", "fused norm", "stage end", "model end"]
"""What reads the output: a norm; one that can all-reduce first; another stage; the final norm."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What one layer does around its block in one forward pass.

    `next` reads the layer's output. `equal_rows`: attention groups are padded to equal numbers of
    rows (MAX_LEN). `contexts_differ`: context-parallel ranks hold different tokens (prefill).
    `may_scatter`: the layer after the block can hand rows back by a reduce-scatter.
    `dense_on_own_rows`: a dense block runs on the rank's own tokens (`moe_dense_tp_size=1`).
    `experts_everywhere`: every rank has every expert's whole weights at hand (`dwdp_size`).
    """

    block: Block = "experts"
    next: Next = "norm"
    equal_rows: bool = False
    contexts_differ: bool = False
    may_scatter: bool = True
    dense_on_own_rows: bool = False
    experts_everywhere: bool = False


def gathers_contexts(config: MoeConfig, layer: Layer) -> bool:
    """Whether context-parallel ranks share their tokens before the experts run."""
    return layer.block == "experts" and config.attn_cp_size > config.moe_dp_size


def gathers(config: MoeConfig, layer: Layer) -> bool:
    """Whether a rank's tensor can hold rows of other attention groups."""
    return config.attn_dp_size > 1 or gathers_contexts(config, layer)
