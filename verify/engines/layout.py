"""A layout in one word, `tp4.dp2.ep2`: how many ranks share what, in a fixed order, 1 left out."""

import re
from dataclasses import astuple, dataclass, fields

from verify.errors import VerifyError


@dataclass(frozen=True, kw_only=True, order=True)
class Layout:
    """Sizes that a server is started with; how many ranks they make is the engine's to say.

    `dp` is attention data parallelism; `dense` 0 leaves the dense layers' size to the server,
    1 asks for dense layers that every rank holds whole.
    """

    tp: int = 1
    dp: int = 1
    cp: int = 1
    pp: int = 1
    ep: int = 1
    moe_dp: int = 1
    dense: int = 0

    def __str__(self) -> str:
        parts = (
            f"{field.name}{value}"
            for field, value in zip(fields(self), astuple(self), strict=True)
            if value != field.default
        )
        return ".".join(parts) or "tp1"


ONE = Layout()
_KEYS = tuple(field.name for field in fields(Layout))
_PART = re.compile(rf"({'|'.join(sorted(_KEYS, key=len, reverse=True))})([0-9]+)")


def parse(text: str) -> Layout:
    """The layout that `text` names. Raises `VerifyError` for text that `str` would not write."""
    sizes: dict[str, int] = {}
    for part in text.split("."):
        found = _PART.fullmatch(part)
        if not found or found[1] in sizes:
            known = ", ".join(_KEYS)
            raise VerifyError(f"--layout {text}: want sizes such as tp4.dp2.ep2 of {known}")
        sizes[found[1]] = int(found[2])
    if min(sizes.values()) < 1:
        raise VerifyError(f"--layout {text}: a size is at least 1")
    layout = Layout(**sizes)
    if str(layout) != text:
        raise VerifyError(f"--layout {text}: is written {layout}")
    return layout
