"""What the boundary of a stage does with an FFN's output, where no block sums itself.

Source: 0.5.23, `layers/layer_boundary/factories.py` (`_resolve_ffn`) and `exit.py` (`_decide`,
`_complete_now`). A sum deferred to the next layer's norm runs over the same group there, and so
does what stands in for its kernel: deferring changes nothing that is counted. In 0.5.21 (`exit.py`,
`_select_ffn_completion`) the boundary sums what it told the block to leave, and nothing else.
"""

from collections.abc import Mapping

from verify.engines.ledger import Release
from verify.parallel.deployment import Deployment
from verify.parallel.row import scatters
from verify.parallel.scene import Mode


def taken_over(
    deployment: Deployment, mode: Mode, flags: Mapping[str, bool], release: Release
) -> tuple[str, tuple[str, ...]]:
    """Who sums, and how; `allow_reduce_scatter` is what `--boundary-reduction` permits."""
    if mode == "scattered":
        return "nothing", ()
    handed = scatters(deployment, mode)
    if handed and (flags["RS"] if release.publishes else deployment.allow_reduce_scatter):
        if flags["DP"]:
            return "dp_reduce_scatterv", ("dp_reduce_scatterv",)
        if deployment.padding == "max_len":
            return "dp_reduce_scatter", ("dp_reduce_scatter",)
    assert release.boundary is not None
    deferred = release.publishes and flags["AF"]
    moved = ("dp_scatter",) if handed else ()
    # the next layer, which a sum is deferred to, does not move rows of contexts
    if mode == "moe_full" and deployment.context_parallel_extend and not deferred:
        moved = ("moe_cp_slice",)
    if release.publishes and not deferred:
        return (*moved, "nothing")[0], moved
    if deferred and deployment.position == "last":
        return "final norm", ()
    return "boundary", (f"{release.boundary(deployment.config)}_all_reduce", *moved)
