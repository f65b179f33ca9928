"""A layout in one word, `tp4.dp2.ep2`: how many ranks share what, in a fixed order, 1 left out."""

import re
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields

from verify.errors import VerifyError

MAX_RANKS = 4


@dataclass(frozen=True, kw_only=True, order=True)
class Layout:
    """Sizes that a server is started with; `tp` is the number of ranks.

    `dp` is attention data parallelism; `dense` 0 leaves the dense layers' size to the server,
    1 asks for dense layers that every rank holds whole.
    """

    tp: int = 1
    dp: int = 1
    cp: int = 1
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
            raise VerifyError(f"--layout {text}: want sizes such as tp4.dp2.ep2 of {_names()}")
        sizes[found[1]] = int(found[2])
    layout = Layout(**sizes)
    if str(layout) != text:
        raise VerifyError(f"--layout {text}: is written {layout}")
    why = illegal(layout)
    if why:
        raise VerifyError(f"--layout {text}: {why}")
    return layout


def illegal(layout: Layout) -> str:
    """Why no server can have these sizes, empty where one might; the server itself may say more."""
    if not 1 <= layout.tp <= MAX_RANKS:
        return f"1 to {MAX_RANKS} ranks fit here"
    if min(astuple(layout)[:-1]) < 1:
        return "a size is at least 1"
    if layout.tp % (layout.dp * layout.cp):
        return "dp times cp divides tp"
    if layout.tp % (layout.ep * layout.moe_dp):
        return "ep times moe_dp divides tp"
    if layout.dense not in (0, 1):
        return "dense is 1 or left out"
    return ""


def every() -> Iterator[Layout]:
    """Every layout of 2 to `MAX_RANKS` ranks that is not illegal, small ones first."""
    sizes = range(1, MAX_RANKS + 1)
    for tp in (2, 4):
        for dp in sizes:
            for cp in sizes:
                for ep in sizes:
                    for moe_dp in sizes:
                        for dense in (0, 1):
                            layout = Layout(tp=tp, dp=dp, cp=cp, ep=ep, moe_dp=moe_dp, dense=dense)
                            # a copy of the experts for each context rank: what the server asks for
                            if not illegal(layout) and cp == moe_dp:
                                yield layout


def _names() -> str:
    return ", ".join(_KEYS)
