"""How vLLM's answers become rows."""

import base64
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
from verify.engines.vllm.serving.inside import passes  # noqa: E402


def test_what_a_model_never_says_is_a_number():
    table = {0: SimpleNamespace(logprob=-0.5), 1: SimpleNamespace(logprob=-float("inf"))}
    raw = base64.b64decode(passes._encoded([table]))
    assert torch.frombuffer(bytearray(raw), dtype=torch.float32).tolist() == [-0.5, passes.LEAST]
