"""How vLLM's answers become rows."""

import base64
import sys
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
from verify.engines.vllm.serving.inside import passes  # noqa: E402


def test_what_a_model_never_says_is_a_number():
    table = {0: SimpleNamespace(logprob=-0.5), 1: SimpleNamespace(logprob=-float("inf"))}
    raw = base64.b64decode(passes._encoded([table]))
    assert torch.frombuffer(bytearray(raw), dtype=torch.float32).tolist() == [-0.5, passes.LEAST]


@pytest.mark.parametrize("first", [True, False])
def test_a_stage_that_looks_no_token_up_has_no_embedding_to_spoil(monkeypatch, first):
    class Embedding(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

    class Head(Embedding):
        pass

    model = torch.nn.ModuleDict({"embed": Embedding(), "head": Head()})
    stage = SimpleNamespace(is_first_rank=first)
    state = SimpleNamespace(get_pp_group=lambda: stage)
    layer = SimpleNamespace(VocabParallelEmbedding=Embedding)
    for name, module in (
        ("vllm", SimpleNamespace()),
        ("vllm.distributed", SimpleNamespace(parallel_state=state)),
        ("vllm.distributed.parallel_state", state),
        ("vllm.model_executor", SimpleNamespace()),
        ("vllm.model_executor.layers", SimpleNamespace()),
        ("vllm.model_executor.layers.vocab_parallel_embedding", layer),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    names = ["embed.weight", "head.weight"]
    assert passes._read(names, model) == (names if first else ["head.weight"])
