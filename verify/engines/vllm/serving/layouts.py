"""Layouts that a vLLM server may have: `tp` times `dp` ranks in each of `pp` pipeline stages.

Experts are spread over all ranks of a stage or none: `ep` is tp times dp, which is what
`--enable-expert-parallel` makes, or is left out.
"""

from collections.abc import Iterator

from verify.engines.layout import Layout

MAX_RANKS = 4
# tiny models have two layers
MAX_STAGES = 2
# `gate`, for a pull request: one shared sum, and the experts' own group over groups of ranks,
# where each rank of a mixture has tokens of its own
SUBSETS = {"gate": (Layout(tp=2), Layout(tp=2, dp=2, ep=4))}


def ranks(layout: Layout) -> int:
    """How many processes the server starts."""
    return layout.tp * layout.dp * layout.pp


def illegal(layout: Layout) -> str:
    """Why no server can have these sizes, empty where one might; the server itself may say more."""
    if ranks(layout) > MAX_RANKS:
        return f"1 to {MAX_RANKS} ranks fit here, and tp times dp times pp is {ranks(layout)}"
    if layout.pp > MAX_STAGES:
        return f"tiny models have layers for {MAX_STAGES} pipeline stages"
    if layout.cp > 1 or layout.moe_dp > 1 or layout.dense:
        return "vLLM has tp, dp, pp and ep"
    if layout.ep not in (1, layout.tp * layout.dp):
        return "ep is tp times dp or left out"
    return ""


def every() -> Iterator[Layout]:
    """Every layout of 2 and 4 ranks that is not illegal, small ones first."""
    whole = ((2, 1, 1), (1, 2, 1), (1, 1, 2), (4, 1, 1), (2, 2, 1), (1, 4, 1))
    for tp, dp, pp in (*whole, (2, 1, 2), (1, 2, 2)):
        for ep in sorted({1, tp * dp}):
            yield Layout(tp=tp, dp=dp, pp=pp, ep=ep)
