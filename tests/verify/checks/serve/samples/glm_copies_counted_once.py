"""For `serve --patch`: GLM-4-MoE of SGLang 0.5.17 counts the copies of its experts once.

Under `--moe-dp-size` each copy's ranks have all routed experts; the release adds up over all ranks,
each copy's part again, beside shared experts that are sharded over all of them.
"""

from sglang.srt.distributed.parallel_state import get_moe_data_parallel_world_size
from sglang.srt.models import glm4_moe

made = glm4_moe.Glm4MoeSparseMoeBlock.__init__


def make(self, *positional, **named):
    made(self, *positional, **named)
    run = self.experts.forward
    self.experts.forward = lambda *a, **k: run(*a, **k) / get_moe_data_parallel_world_size()


glm4_moe.Glm4MoeSparseMoeBlock.__init__ = make
