"""From a deployment to the steps of a layer with a stage boundary, where no block sums itself.

Source: 0.5.23, `layers/layer_boundary/factories.py` (`_resolve_ffn`) and `exit.py` (`_decide`,
`_complete_now`). A sum deferred to the next layer's norm runs over the same group there, and
so does what stands in for its kernel: deferring changes nothing that is counted.
"""

from verify.engines.ledger import LayerTraits, Plan, Release
from verify.parallel.deployment import Deployment
from verify.parallel.row import flags_of, mode_of, number_of, scatters
from verify.parallel.scene import Mode


def plan(
    deployment: Deployment,
    traits: LayerTraits,
    release: Release,
    *,
    producer: tuple[str, ...],
    shared: tuple[str, ...],
) -> Plan:
    """The layer of `deployment`: `producer` and `shared` are the steps of its experts."""
    mode = mode_of(deployment, dense=False)
    by_size = release.sums_by_scatterv(deployment.config)
    flags = flags_of(
        deployment,
        mode=mode,
        hears_fusion=False,
        may_reduce_scatter=False,
        sums_by_scatterv=by_size,
    )
    reader, summed = _exit(deployment, mode, release, by_size=by_size)
    gathered = ("attention_gather",) if mode == "scattered" else ()
    early = traits.adds_shared == "before"
    return Plan(
        row=number_of(flags),
        mode=mode,
        reader=reader,
        before=producer + (shared if early else ()),
        last=() if early else shared,
        after=(*summed, "residual_add", *gathered),
    )


def _exit(
    deployment: Deployment, mode: Mode, release: Release, *, by_size: bool
) -> tuple[str, tuple[str, ...]]:
    """Who sums, and how; `allow_reduce_scatter` is what `--boundary-reduction` permits."""
    if mode == "scattered":
        return "nothing", ()
    handed = scatters(deployment, mode)
    if handed and deployment.allow_reduce_scatter:
        if by_size:
            return "dp_reduce_scatterv", ("dp_reduce_scatterv",)
        if deployment.padding == "max_len":
            return "dp_reduce_scatter", ("dp_reduce_scatter",)
    assert release.boundary is not None
    moved = ("dp_scatter",) if handed else ()
    if mode == "moe_full" and deployment.context_parallel_extend:
        moved = ("moe_cp_slice",)
    return "boundary", (f"{release.boundary(deployment.config)}_all_reduce", *moved)
