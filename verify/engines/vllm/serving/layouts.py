"""Layouts that a vLLM server may have: `tp` times `dp` ranks; experts are spread over all or none.

`ep` is tp times dp, which is what `--enable-expert-parallel` makes, or is left out.
"""

from collections.abc import Iterator

from verify.engines.layout import Layout

MAX_RANKS = 4
# `gate`, for a pull request: one shared sum, and the experts' own group over groups of ranks,
# where each rank of a mixture has tokens of its own
SUBSETS = {"gate": (Layout(tp=2), Layout(tp=2, dp=2, ep=4))}


def ranks(layout: Layout) -> int:
    """How many processes the server starts."""
    return layout.tp * layout.dp


def illegal(layout: Layout) -> str:
    """Why no server can have these sizes, empty where one might; the server itself may say more."""
    if ranks(layout) > MAX_RANKS:
        return f"1 to {MAX_RANKS} ranks fit here, and tp times dp is {ranks(layout)}"
    if layout.pp > 1:
        return "pipeline stages are not served"
    if layout.cp > 1 or layout.moe_dp > 1 or layout.dense:
        return "vLLM has tp, dp and ep"
    if layout.ep not in (1, ranks(layout)):
        return "ep is tp times dp or left out"
    return ""


def every() -> Iterator[Layout]:
    """Every layout of 2 and 4 ranks that is not illegal, small ones first."""
    for tp, dp in ((2, 1), (1, 2), (4, 1), (2, 2), (1, 4)):
        for ep in (1, tp * dp):
            yield Layout(tp=tp, dp=dp, ep=ep)
