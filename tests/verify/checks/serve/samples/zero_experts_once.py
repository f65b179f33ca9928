"""For `serve --patch`: of the ranks whose sums are added, one adds LongCat's zero experts."""

import torch
from sglang.srt.layers.moe import utils
from sglang.srt.models import longcat_flash

compute = longcat_flash.zero_experts_compute_triton
# 0.5.17 has no such question; without attention data parallelism all ranks' sums are added
adds = getattr(
    utils, "adds_replicated_output_to_partial", lambda: torch.distributed.get_rank() == 0
)


def once(**given):
    """The whole result where a rank adds what all have, none elsewhere."""
    result = compute(**given)
    return result if adds() else torch.zeros_like(result)


longcat_flash.zero_experts_compute_triton = once
