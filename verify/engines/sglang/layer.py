"""From a deployment to the steps that a layer takes: who reduces, and who reads.

Source: 0.5.11, `layers/communicator.py` (`LayerCommunicator`) and the decoder layers' forward().
"""

from collections.abc import Mapping

from helper import Path
from verify.engines.ledger import LayerTraits, Plan, Release
from verify.engines.sglang.boundary import taken_over
from verify.parallel.deployment import Deployment, Shared
from verify.parallel.guards import Guards
from verify.parallel.row import flags_of, mode_of, number_of, scatters
from verify.parallel.scene import Mode

SHARED_STEPS: Mapping[Shared, tuple[str, ...]] = {
    "none": (),
    # one more routed expert: its partial is the routed one
    "fused": (),
    "sharded": ("shared_sharded",),
    "replicated": ("shared_replicated",),
}
SCATTERS = ("dp_reduce_scatterv", "dp_reduce_scatter", "dp_scatter", "moe_cp_slice")
RELEASE_0_5_11 = Release(name="0.5.11")


def plan(deployment: Deployment, traits: LayerTraits, release: Release) -> Plan:
    """The layer of `deployment` around a block with these traits."""
    shared = () if traits.producer == "dense" else _shared(deployment, traits)
    mode = mode_of(deployment, dense=traits.producer == "dense")
    answers, by_size = release.answers, release.sums_by_scatterv(deployment.config)
    last = deployment.position == "last" and traits.knows_last_layer
    allowed = traits.may_reduce_scatter and deployment.allow_reduce_scatter
    scattered = answers is not None and answers.scatters(
        deployment, mode, allowed=allowed, by_size=by_size
    )
    flags = flags_of(
        deployment,
        mode=mode,
        hears_fusion=traits.hears_fusion,
        may_reduce_scatter=traits.may_reduce_scatter,
        knows_last_layer=traits.knows_last_layer,
        fuses=answers.fuses(deployment, mode, last=last, scattered=scattered) if answers else None,
        reduce_scatters=scattered if answers else None,
        sums_by_scatterv=by_size,
    )
    if release.boundary is not None:
        reader, summed = taken_over(deployment, mode, flags, release)
    elif flags["AF"]:
        reader = _fused_reader(deployment, traits)
        summed = _fused_sum(deployment, reader, release)
    else:
        reader = _postprocess_reader(deployment, mode, flags)
        summed = (reader,) if reader in SCATTERS else ()
    gathered = ("attention_gather",) if mode == "scattered" else ()
    early = traits.adds_shared == "before"
    return Plan(
        row=number_of(flags),
        mode=mode,
        reader=reader,
        before=_producer(deployment, traits) + (shared if early else ()),
        last=() if early else shared,
        after=(*summed, "residual_add", *gathered),
    )


def sites(deployment: Deployment, guards: Guards, row: int) -> tuple[str, ...]:
    """The block's own reductions in `row`, in program order; a group of one rank has none."""
    config = deployment.config
    gates: tuple[tuple[Path, str, int], ...] = (
        (("EP", "ep_all_reduce", config.ep_size), ("TP", "moe_tp_all_reduce", config.moe_tp_size))
        if guards.producer == "two-site"
        else (("TP", "tp_all_reduce", config.tp_size),)
    )
    if guards.producer == "dense":
        reaches = not deployment.dense_fully_dp
    else:
        reaches = config.moe_a2a_backend == "none" or bool(guards.reached_by)
    if not reaches:
        return ()
    made = ((step, guards.times(path, row)) for path, step, size in gates if size > 1)
    return tuple(step for step, times in made for _ in range(times))


def _shared(deployment: Deployment, traits: LayerTraits) -> tuple[str, ...]:
    config = deployment.config
    # of one that is fused every expert-parallel rank has all, if experts are not split further
    copies = config.moe_a2a_backend == "none" and config.ep_size > 1 == config.moe_tp_size
    if deployment.shared == "fused" and copies and not traits.weighs_fused:
        return SHARED_STEPS["replicated"]
    return SHARED_STEPS[deployment.shared]


def _producer(deployment: Deployment, traits: LayerTraits) -> tuple[str, ...]:
    if traits.producer == "dense":
        return ("dense_mlp_fully_dp",) if deployment.dense_fully_dp else ("dense_mlp",)
    if deployment.fp4_allgather:
        return ("fp4_dispatch", "routed_experts", "fp4_combine")
    if deployment.config.moe_a2a_backend != "none":
        return ("all_to_all_experts",)
    return ("routed_experts",)


def _postprocess_reader(deployment: Deployment, mode: Mode, flags: Mapping[str, bool]) -> str:
    """`postprocess_layer`: which communication follows the MLP."""
    if mode == "moe_full" and deployment.context_parallel_extend:
        return "moe_cp_slice"
    if not scatters(deployment, mode):
        return "nothing"
    if flags["DP"]:
        return "dp_reduce_scatterv"
    return "dp_reduce_scatter" if flags["RS"] else "dp_scatter"


def _fused_reader(deployment: Deployment, traits: LayerTraits) -> str:
    """`prepare_attn` of the next layer, and which way its norm takes."""
    config, fusion = deployment.config, deployment.fusion
    if not traits.tags_fusion:
        return "untagged"
    if deployment.position == "last":
        return "final norm"
    # the tag is an attribute of the tensor: sending it to another pipeline stage loses it
    if deployment.position == "stage-end":
        return "stage completes" if traits.completes_stage else "other stage"
    # apply_aiter_all_reduce_fusion asks again, and not under attention data parallelism
    if fusion == "no-fused-norm" or (fusion.startswith("aiter") and config.enable_dp_attention):
        return "unfused norm"
    if fusion == "flashinfer-declined":
        return "declined"
    return "aiter norm" if fusion.startswith("aiter") else "fused norm"


def _fused_sum(deployment: Deployment, reader: str, release: Release) -> tuple[str, ...]:
    """`_forward_with_allreduce_fusion`: what is summed, over which group."""
    config = deployment.config
    # the norm looks at the size of the EP group, else of MoE-TP, before it does anything
    alone = config.ep_size == 1 and config.moe_tp_size == 1
    moe_group = "ep_all_reduce" if config.ep_size > 1 else "moe_tp_all_reduce"
    unfused = release.unfused_group
    sums: dict[str, tuple[str, ...]] = {
        # models/qwen2_moe.py from 0.5.14 on: the model reduces before it sends the tensors
        "stage completes": ("ep_all_reduce", "moe_tp_all_reduce"),
        "unfused norm": () if unfused == "none" else (f"{unfused}_all_reduce",),
        # tensor_model_parallel_fused_allreduce_rmsnorm, else tensor_model_parallel_all_reduce
        "aiter norm": () if alone else ("tp_all_reduce",),
        "fused norm": ()
        if alone
        else ("tp_all_reduce" if release.fused_group == "tp" else moe_group,),
        # the model's own norm after the last layer reads no tag
        "final norm": (),
        # flashinfer_allreduce_residual_rmsnorm returned None, and the norm runs without a sum
        "declined": (),
    }
    return sums.get(reader, ())


def applies(deployment: Deployment, guards: Guards) -> bool:
    """Whether a block with these guards can be in this deployment at all."""
    rule, shared = guards.shared_experts, deployment.shared
    refused = (
        deployment.config.enable_dp_attention and not guards.attention_dp,
        deployment.fp4_allgather and not guards.fp4_allgather,
        # flashinfer's kernels and this dispatcher are CUDA's
        shared == "fused"
        and guards.fuses_on_rocm
        and (deployment.fp4_allgather or deployment.fusion.startswith("flashinfer")),
        # what a layer allows is not the server's to choose
        guards.allows_reduce_scatter not in (None, deployment.allow_reduce_scatter),
    )
    if any(refused):
        return False
    if rule == "none":
        return shared == "none"
    if guards.adds_shared == "after":
        # what is added to a sum already made has to be whole on every rank
        return shared != "sharded"
    if not deployment.scattered:
        return shared != "replicated"
    if not deployment.fp4_allgather or rule == "any":
        return True
    return shared != ("sharded" if rule == "replicated for FI" else "replicated")
