"""Which row a layer is in on a deployment: the flags that its server and its communicator raise.

Source: 0.5.11, `layers/communicator.py` and `layers/moe/utils.py`. Whoever needs a row asks here.
"""

from verify.logic.flags import flag_names
from verify.parallel.deployment import Deployment
from verify.parallel.scene import Mode


def mode_of(deployment: Deployment, *, dense: bool) -> Mode:
    """Which tokens a layer's MLP is given, a dense one or a block of experts."""
    if dense:
        return "scattered" if deployment.dense_fully_dp else "full"
    if deployment.scattered:
        return "scattered"
    return "moe_full" if deployment.shares_tokens_across_cp else "full"


def scatters(deployment: Deployment, mode: Mode) -> bool:
    """Whether each rank takes its own group's tokens out of all after the MLP."""
    return mode == "full" and deployment.config.attn_dp_size > 1


def flags_of(
    deployment: Deployment,
    *,
    mode: Mode,
    hears_fusion: bool = True,
    may_reduce_scatter: bool = True,
    knows_last_layer: bool = True,
    fuses: bool | None = None,
    reduce_scatters: bool | None = None,
    sums_by_scatterv: bool | None = None,
) -> dict[str, bool]:
    """Every flag that the helper lists, for a layer whose MLP is given tokens by `mode`.

    `hears_fusion` and `may_reduce_scatter` where the block's forward() takes that decision;
    `knows_last_layer` where its communicator was told. Of the release: `fuses` is its own condition
    for leaving a sum to the next norm, `reduce_scatters` that for a reduce-scatter,
    `sums_by_scatterv` what it defines that flag to be here; None: as 0.5.11 and the helper do.
    """
    if sums_by_scatterv is None:
        sums_by_scatterv = deployment.sums_by_scatterv
    if fuses is None:
        fuses = (
            deployment.fusion != "off"
            and deployment.config.tp_size > 1
            and not deployment.shares_tokens_across_cp
            and not (deployment.position == "last" and knows_last_layer)
        )
    if reduce_scatters is None:
        reduce_scatters = may_reduce_scatter and deployment.may_scatter_sums
    return _named(
        AF=hears_fusion and fuses,
        RS=reduce_scatters and scatters(deployment, mode),
        DP=sums_by_scatterv,
        FI=deployment.fp4_allgather,
    )


def number_of(flags: dict[str, bool]) -> int:
    """The row's number: its bits in flag order."""
    number = 0
    for name in flag_names():
        number = number << 1 | flags[name]
    return number


def _named(**flags: bool) -> dict[str, bool]:
    # a flag that the helper lists and no layer knows stays false
    return {name: flags.get(name, False) for name in flag_names()}
