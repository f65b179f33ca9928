"""Layouts that an SGLang server may have: `tp` is the number of ranks, whatever else is set."""

from collections.abc import Iterator
from itertools import product

from verify.engines.layout import Layout

MAX_RANKS = 4
# `gate`, for a pull request: the experts' own group, and with it attention groups of their own,
# which is where #23734 was
SUBSETS = {"gate": (Layout(tp=2, ep=2), Layout(tp=2, dp=2, ep=2))}


def ranks(layout: Layout) -> int:
    """How many processes the server starts."""
    return layout.tp


def illegal(layout: Layout) -> str:
    """Why no server can have these sizes, empty where one might; the server itself may say more."""
    if layout.tp > MAX_RANKS:
        return f"1 to {MAX_RANKS} ranks fit here"
    if layout.pp > 1:
        return "pipeline stages are not served"
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
        for dp, cp, ep, dense in product(sizes, sizes, sizes, (0, 1)):
            # a copy of the experts for each context rank: what the server asks for
            layout = Layout(tp=tp, dp=dp, cp=cp, ep=ep, moe_dp=cp, dense=dense)
            if not illegal(layout):
                yield layout
