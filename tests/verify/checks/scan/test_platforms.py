"""A backend whose code is one platform's needs that platform."""

from collections.abc import Callable

import pytest

from verify.checks.scan.server.platforms import platform_of, with_platform
from verify.engines.sglang.library import LIBRARY
from verify.interpreter.index import Index
from verify.source.source import SourceTree

ROCM = "from aiter import get_hip_quant\n\n\ndef dispatch():\n    return get_hip_quant()\n"
LAYER = """
class FusedMoE:
    def forward(self, x):
        if get_moe_a2a_backend().is_sturdy():
            from sglang.srt.hardware_backend.npu.moe.sturdy import run

            return run(self, x)
        return x
"""


@pytest.mark.parametrize(
    ("backend", "text", "needs"),
    [
        ("alder", ROCM, "a ROCm GPU"),
        ("alder", "def dispatch():\n    pass\n", None),
        ("alder", ROCM + "\n\nif is_cuda():\n    pass\n", None),
        ("sturdy", "", "an NPU"),
        ("plain", ROCM, None),
    ],
)
def test_platform(
    source: Callable[..., SourceTree], backend: str, text: str, needs: str | None
) -> None:
    library = {"layers/moe/experts.py": LAYER, "layers/moe/token_dispatcher/alder.py": text}
    with source("", library=library) as tree:
        index = Index(tree, LIBRARY)
        assert platform_of(index, backend) == needs
        assert with_platform(index, backend) == (f"{backend} (on {needs})" if needs else backend)
