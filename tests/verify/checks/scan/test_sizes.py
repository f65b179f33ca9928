"""A name that says whose size it is has that size."""

from collections.abc import Callable

import pytest

from verify.checks.scan.scan import ScanResult

COMMUNICATOR = "class Context:\n    def init_new(self):\n        tp_size = {size}\n"
ATTENTION = """
class Attention:
    def __init__(self, config):
        attn_tp_size = {size}
        self.num_heads = config.heads // attn_tp_size
        self.attn = RadixAttention(self.num_heads)


class Layer:
    def __init__(self, config):
        self.comm = LayerCommunicator(None, None)
"""
BLOCK = (
    "class Experts:\n    def __init__(self):\n        {name} = {size}\n        n = 8 // {name}\n"
)


def rules(scanned: Callable[..., ScanResult], *model: str, shared: str = "") -> list[str]:
    library = {"layers/dp_attention.py": shared}
    return [one.rule for one in scanned(*model, library=library).findings]


@pytest.mark.parametrize(
    ("size", "found"),
    [
        ("get_parallel().tp_size", []),
        ("get_tensor_model_parallel_world_size()", []),
        ("(get_parallel().attn_tp_size)", ["group-too-narrow"]),
        ("get_moe_expert_parallel_world_size()", ["group-too-narrow"]),
        ("something_else()", []),
    ],
)
def test_shared_code(scanned: Callable[..., ScanResult], size: str, found: list[str]) -> None:
    assert rules(scanned, shared=COMMUNICATOR.format(size=size)) == found


@pytest.mark.parametrize(
    ("size", "found"),
    [
        ("get_parallel().attn_tp_size", []),
        ("get_attention_tp_size()", []),
        ("(get_parallel().ep_size)", ["group-too-narrow"]),
        ("get_moe_expert_parallel_world_size()", ["group-too-narrow"]),
        # attention has ranks of its own where a communicator serves its layer
        ("get_tensor_model_parallel_world_size()", ["group-too-narrow"]),
    ],
)
def test_heads(scanned: Callable[..., ScanResult], size: str, found: list[str]) -> None:
    assert rules(scanned, ATTENTION.format(size=size)) == found


def test_model_without_a_communicator(scanned: Callable[..., ScanResult]) -> None:
    alone = ATTENTION.partition("\n\n\n")[0].format(size="get_parallel().tp_size")
    assert rules(scanned, alone) == []


@pytest.mark.parametrize("name", ["tp_size", "ep_size", "moe_tp_size"])
def test_size_that_cuts_no_heads(scanned: Callable[..., ScanResult], name: str) -> None:
    assert rules(scanned, BLOCK.format(name=name, size="get_parallel().moe_ep_size")) == []
