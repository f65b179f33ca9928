"""For `serve --patch`: LongCat of SGLang 0.5.23 with both of its faults repaired.

Of the ranks whose sums are added, one adds the zero experts (as zero_experts_once.py); under
`--moe-dense-tp-size 1` its dense layers are built whole (as dense_whole.py), which the layer
boundary takes them for.
"""

from functools import partial

import torch
from sglang.srt.layers.layer_boundary.layout import is_dense_ffn_fully_dp
from sglang.srt.layers.moe.utils import adds_replicated_output_to_partial
from sglang.srt.models import longcat_flash

compute = longcat_flash.zero_experts_compute_triton
made = longcat_flash.LongcatFlashMLP.__init__
LINEAR = ("MergedColumnParallelLinear", "RowParallelLinear")


def once(**given):
    """The whole result where a rank adds what all have, none elsewhere."""
    result = compute(**given)
    return result if adds_replicated_output_to_partial() else torch.zeros_like(result)


def make(self, *positional, **named):
    """A dense layer, whole where the boundary takes it to run on the rank's own rows."""
    kept = {name: getattr(longcat_flash, name) for name in LINEAR}
    if is_dense_ffn_fully_dp():
        for name, kind in kept.items():
            setattr(longcat_flash, name, partial(kind, parallel_group="replicated"))
    made(self, *positional, **named)
    for name, kind in kept.items():
        setattr(longcat_flash, name, kind)


longcat_flash.zero_experts_compute_triton = once
longcat_flash.LongcatFlashMLP.__init__ = make
