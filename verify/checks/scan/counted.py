"""A finding's launch as ranks: its deployment, and what each rank counts of each rank's part.

The steps that the layer takes there follow from what is wrong with it; what they do to the counts
is said by the functions of `prove`. Where they do not show what the finding says, nothing is said.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from helper import MoeConfig
from helper.config import A2A_BACKENDS, ConfigError
from verify.checks.prove.findings import drawn
from verify.checks.prove.judge import run
from verify.checks.scan.addends.judge import Cause
from verify.checks.scan.judge import Fault
from verify.engines.sources import ledger, reading
from verify.interpreter.values import Axis
from verify.parallel.deployment import Deployment
from verify.parallel.row import scatters
from verify.parallel.scene import Mode, Scene
from verify.report.report import Finding, Json

ENGINE = reading()
FLAGS, ROLES = ENGINE.flags, ENGINE.roles
LEDGER = ledger()
Sizes = Mapping[str, int]
OWN_GROUP = ("ep_all_reduce", "moe_tp_all_reduce")
COMBINED = ("fp4_dispatch", "routed_experts", "fp4_combine")


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What a layer does up to where its output is taken, and on which rows."""

    names: tuple[str, ...]
    mode: Mode = "full"


# by what is wrong with an addend, up to the sum that is not made
ADDENDS: Mapping[Cause, Steps] = {
    "dispatched": Steps(names=(*COMBINED, "shared_sharded"), mode="scattered"),
    "backend": Steps(names=("all_to_all_experts", "shared_sharded"), mode="scattered"),
    "local-work": Steps(names=("all_to_all_experts", "shared_sharded"), mode="scattered"),
    "dense": Steps(names=("dense_mlp",), mode="scattered"),
    "resummed": Steps(names=("dense_mlp_fully_dp",), mode="scattered"),
    "unmoved": Steps(names=("routed_experts",), mode="scattered"),
    "unsent": Steps(names=("routed_experts",), mode="scattered"),
    "copies": Steps(names=("routed_experts", "shared_sharded", *OWN_GROUP)),
    "own-copies": Steps(names=("routed_experts", "tp_all_reduce")),
    "fused": Steps(names=("routed_experts", "shared_replicated", *OWN_GROUP)),
    "split": Steps(names=("routed_experts", "ep_all_reduce")),
}
AXES: Mapping[Axis, str] = {"EP": "ep_all_reduce", "MOE_TP": "moe_tp_all_reduce"}
# by the flag of the row: who sums what the block leaves
LATER: Mapping[str, tuple[str, ...]] = {
    **{flag: (step,) for flag, step in LEDGER.scatters.items()},
    ROLES.fuses: ("tp_all_reduce",),
}
# a scan's words in prove's: what is complete and summed up again holds other tokens where rows
# are local
KINDS: Mapping[str, tuple[str, ...]] = {
    "lost": ("missing",),
    "past the end": ("missing",),
    "double": ("double",),
    "twice": ("double",),
    "combined": ("double", "mixed"),
    "backend": ("double", "mixed"),
    "mixed": ("mixed",),
}


# a sum that is left to nobody
NEVER = Steps(names=("routed_experts",))


def of_addend(cause: Cause, kind: str, row: str = "") -> Steps | None:
    """The steps of a layer with an addend of the wrong kind; None where they are not known."""
    steps = ADDENDS.get("own-copies" if (cause, kind) == ("copies", "double") else cause)
    if cause == "gathered":
        return owed(row)
    if steps is None or kind != "mixed":
        return steps
    if "shared_sharded" in steps.names:
        # it sums its own output up; what the experts bring is complete and is not in that sum
        return replace(steps, names=("shared_sharded", "tp_all_reduce", "all_to_all_experts"))
    return replace(steps, names=(*steps.names, "tp_all_reduce"))


def owed(row: str) -> Steps:
    """The steps of a layer that adds a whole value to a sum, which a row's flags make later."""
    return Steps(names=("routed_experts", "shared_replicated", *_later(row)))


def of_sum(fault: Fault) -> Steps | None:
    """The steps of a layer that sums its output up twice, or never."""
    held = {flag for flag, bit in zip(FLAGS, fault.row, strict=True) if bit == "1"}
    sums = tuple(name for place in fault.places for name in _summed(place.axes))
    match fault.kind:
        case "double":
            return Steps(names=("routed_experts", *sums, *_later(fault.row)))
        case "twice":
            return Steps(names=("routed_experts", *sums))
        case "backend":
            return Steps(names=("all_to_all_experts", *sums), mode="scattered")
        case "combined":
            return Steps(names=(*COMBINED, *sums), mode="scattered")
        case "lost" if ROLES.combines in held:
            # what the dispatcher brings is complete; what is beside it is not
            return ADDENDS["dispatched"]
        case "lost" | "past the end":
            return NEVER
    return None


def _later(row: str) -> tuple[str, ...]:
    """Who sums what a block leaves in a row."""
    held = {flag for flag, bit in zip(FLAGS, row, strict=False) if bit == "1"}
    return next((steps for flag, steps in LATER.items() if flag in held), OWN_GROUP)


def _summed(axes: tuple[Axis, ...]) -> tuple[str, ...]:
    """What a collective over these groups does; the whole group has the others in it."""
    if "TP" in axes:
        return ("tp_all_reduce",)
    return tuple(name for axis, name in AXES.items() if axis in axes)


def counted(
    finding: Finding, steps: Steps | None, options: Mapping[str, Any], sizes: Sizes
) -> Finding:
    """The finding with its deployment and counts, where the launch has one."""
    deployment = _deployment(options, sizes)
    if steps is None or deployment is None:
        return finding
    # a prompt's tokens are shared out over context ranks, a generated one is on each of them
    for extend in (True, False) if deployment.config.attn_cp_size > 1 else (False,):
        shown = replace(deployment, context_parallel_extend=extend)
        scene = Scene(deployment=shown, mode=steps.mode)
        verdict = run(scene, _ended(scene, steps), row=finding.row or "")
        if verdict.kind in KINDS[finding.kind]:
            return replace(
                finding,
                deployment={**shown.as_json(), **_besides(options)},
                counts=verdict.counts,
                counts_of=verdict.counts_of,
                groups=drawn(shown),
            )
    return finding


def _ended(scene: Scene, steps: Steps) -> tuple[str, ...]:
    """The steps and what every layer ends with."""
    gathered = ("attention_gather",) if scene.mode == "scattered" else ()
    own_rows: tuple[str, ...] = ()
    if scatters(scene.deployment, scene.mode):
        scattered = steps.names[-1] in LEDGER.scatters.values()
        own_rows = () if scattered else (LEDGER.own_rows,)
    return (*steps.names, *own_rows, "residual_add", *gathered)


def _deployment(options: Mapping[str, Any], sizes: Sizes) -> Deployment | None:
    """The deployment of a launch; None where its sizes are no server's."""
    name = options.get("moe_a2a_backend", "none")
    known = name if name in A2A_BACKENDS else "customized"
    attention = sizes.get("attn_dp_size", 1)
    try:
        config = MoeConfig(
            tp_size=sizes.get("tp_size", 1),
            ep_size=sizes.get("moe_ep_size", 1),
            moe_dp_size=sizes.get("moe_dp_size", 1),
            attn_dp_size=attention,
            attn_cp_size=sizes.get("attn_cp_size", 1),
            enable_dp_attention=attention > 1,
            moe_a2a_backend=known,
            moe_runner_backend=options.get("moe_runner_backend", "auto"),
            quantization=options.get("quantization"),
        )
    except ConfigError:
        return None
    return Deployment(
        config=config,
        dense_fully_dp=options.get("moe_dense_tp_size") == 1,
    )


def _besides(options: Mapping[str, Any]) -> dict[str, Json]:
    """What a launch has that prove's deployments do not know, by its own name."""
    return {
        name: options[name]
        for name in ("moe_a2a_backend", ENGINE.launches.local_size)
        if name in options
    }
