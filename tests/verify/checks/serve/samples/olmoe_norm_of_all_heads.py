"""For `serve --patch`: OLMoE's norms of queries and keys are over all heads, of all ranks."""

from sglang.srt.models import olmoe
from sglang.srt.runtime_context import get_parallel

made = olmoe.OlmoeAttention.__init__


def over_all(norm):
    """The norm's forward on a rank's slice of what it is over."""
    forward = norm.forward

    def gathered(part):
        parallel = get_parallel()
        if parallel.tp_size == 1:
            return forward(part)
        whole = forward(parallel.tp_group.all_gather(part, -1))
        return whole.chunk(parallel.tp_size, -1)[parallel.tp_rank].contiguous()

    return gathered


def make(self, *positional, **named):
    made(self, *positional, **named)
    self.q_norm.forward = over_all(self.q_norm)
    self.k_norm.forward = over_all(self.k_norm)


olmoe.OlmoeAttention.__init__ = make
