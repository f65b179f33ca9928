"""For `serve --patch`: GPT-OSS of SGLang 0.5.19 leaves its sum to whoever says that it makes it.

As 0.5.20 (#37199): the block asks for each of the reasons to skip, where it asked for one.
"""

from sglang.srt.layers.moe.utils import should_skip_post_experts_all_reduce
from sglang.srt.models import gpt_oss

add_up = gpt_oss.tensor_model_parallel_all_reduce


def unless_summed_later(part):
    """The sum over the ranks, or the part where another step adds it up."""
    return part if should_skip_post_experts_all_reduce(is_tp_path=True) else add_up(part)


gpt_oss.tensor_model_parallel_all_reduce = unless_summed_later
