"""Backends that exist on one platform only, told by the code behind the question `is_x()`.

The dispatcher of a backend lies in a file called after it; one that lies with another platform's
code is imported where the question was answered.
"""

import re
from functools import lru_cache

from verify.engines.sources import reading
from verify.interpreter.index import Index

ENGINE = reading()
DISPATCHERS = ENGINE.files.dispatchers
# ROCm's own functions, and no word of another platform
_ROCM = re.compile(r"(?s)\A(?!.*\bis_(?:cuda|npu|xpu)\b).*\bget_hip_\w+\b")
_ELSEWHERE = re.compile(r"\bhardware_backend\.(\w+)\b")
NAMES = {
    "cpu": "a CPU",
    "npu": "an NPU",
    "xpu": "an XPU",
    "hip": "a ROCm GPU",
    "mlx": "Apple silicon",
}


def with_platform(index: Index, backend: str) -> str:
    """A backend's name, with the platform where it exists on one only."""
    platform = platform_of(index, backend)
    return f"{backend} (on {platform})" if platform else backend


@lru_cache(maxsize=128)
def platform_of(index: Index, backend: str) -> str | None:
    """What a machine must have for a backend; None where its code names no platform."""
    asked = re.compile(rf"(?:is_{backend}\(\)|_use_{backend}\b)[^\n]*:\n(?:[^\n]*\n){{0,6}}")
    for path in index.tree.under(f"{ENGINE.library.layers}moe/"):
        module = index.module(path)
        if module is None:
            continue
        own = path.removeprefix(DISPATCHERS).startswith(backend)
        if path.startswith(DISPATCHERS) and own and _ROCM.search(module.text):
            return NAMES["hip"]
        for match in asked.finditer(module.text) if backend in module.text else ():
            elsewhere = _ELSEWHERE.search(match[0])
            if elsewhere is not None:
                return NAMES.get(elsewhere[1], elsewhere[1])
    return None
