"""For `serve --patch`: of the ranks whose sums are added, one adds LongCat's zero experts."""

import torch
from sglang.srt.layers.moe.utils import adds_replicated_output_to_partial
from sglang.srt.models import longcat_flash

compute = longcat_flash.zero_experts_compute_triton


def once(**given):
    """The whole result where a rank adds what all have, none elsewhere."""
    result = compute(**given)
    return result if adds_replicated_output_to_partial() else torch.zeros_like(result)


longcat_flash.zero_experts_compute_triton = once
