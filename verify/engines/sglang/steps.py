"""What each step of a layer does to what the ranks hold. One function a step, one source each.

All file names are release 0.5.11's, below `python/sglang/srt`.
"""

from collections.abc import Mapping

from verify.engines.ledger import Step
from verify.parallel.counts import (
    ImpossibleError,
    State,
    all_gather,
    all_reduce,
    by_rank,
    keep,
    length,
    produce,
    reduce_scatter,
    same_tokens,
)
from verify.parallel.scene import Scene


def routed_experts(scene: Scene, state: State) -> State:
    """`layers/moe/fused_moe_triton/layer.py`: own experts, own slice of each: a partial.

    MoE data-parallel ranks hold copies of the same experts.
    """
    different = scene.deployment.config.ep_size * scene.deployment.config.moe_tp_size
    return produce(state, "routed", different=different, part=lambda rank: rank % different)


def all_to_all_experts(scene: Scene, state: State) -> State:
    """`layers/moe/token_dispatcher/deepep.py` and its kind: combine brings every expert's part."""
    return produce(state, "routed", different=scene.world_size)


def fp4_dispatch(scene: Scene, state: State) -> State:
    """`layers/moe/token_dispatcher/standard.py`, dispatch: all_gatherv over the TP group."""
    if len(scene.sizes) != scene.world_size:
        raise ImpossibleError(
            f"all_gatherv gets a list of {len(scene.sizes)} sizes for {scene.world_size} ranks"
        )
    del state
    return scene.everyone


def fp4_combine(scene: Scene, state: State) -> State:
    """`layers/moe/token_dispatcher/standard.py`, combine: reduce_scatterv over the TP group."""
    return reduce_scatter(state, scene.layout.tp, scene.sizes)


def shared_sharded(scene: Scene, state: State) -> State:
    """`models/qwen2_moe.py`: a shared expert sliced over the TP group: a partial."""
    return produce(state, "shared", different=scene.world_size, part=lambda rank: rank)


def shared_replicated(scene: Scene, state: State) -> State:
    """`models/deepseek_v2.py`: a whole shared expert on every rank (`tp_rank=0, tp_size=1`)."""
    del scene
    return produce(state, "shared", different=1)


def dense_mlp(scene: Scene, state: State) -> State:
    """`models/deepseek_v2.py` (`DeepseekV2MLP`): a slice of a dense MLP: a partial."""
    return produce(state, "routed", different=scene.world_size, part=lambda rank: rank)


def dense_mlp_fully_dp(scene: Scene, state: State) -> State:
    """`models/deepseek_v2.py`, `moe_dense_tp_size=1`: a whole dense MLP for the own tokens."""
    del scene
    return produce(state, "routed", different=1)


def ep_all_reduce(scene: Scene, state: State) -> State:
    """`distributed/communication_op.py`: `moe_expert_parallel_all_reduce`."""
    return all_reduce(state, scene.layout.ep)


def moe_tp_all_reduce(scene: Scene, state: State) -> State:
    """`distributed/communication_op.py`: `moe_tensor_model_parallel_all_reduce`."""
    return all_reduce(state, scene.layout.moe_tp)


def tp_all_reduce(scene: Scene, state: State) -> State:
    """`distributed/communication_op.py`: `tensor_model_parallel_all_reduce`."""
    return all_reduce(state, scene.layout.tp)


def dp_reduce_scatterv(scene: Scene, state: State) -> State:
    """`layers/communicator.py`, `_scatter_hidden_states`, DP: sizes list the attention groups."""
    return reduce_scatter(state, scene.layout.tp, scene.sizes)


def dp_reduce_scatter(scene: Scene, state: State) -> State:
    """`layers/dp_attention.py`, `dp_reduce_scatter_tensor`: equal chunks, gathered per group."""
    scattered = reduce_scatter(state, scene.layout.tp)
    if scene.deployment.config.attn_tp_size == 1:
        return scattered
    return all_gather(scattered, scene.layout.attn_tp)


def dp_scatter(scene: Scene, state: State) -> State:
    """`layers/dp_attention.py`, `dp_scatter`: a copy of the own group's rows, no sum."""
    return _own_rows(scene, state)


def moe_cp_slice(scene: Scene, state: State) -> State:
    """`layers/communicator.py`, `_scatter_hidden_states_moe`: the own context's rows, no sum."""
    return _own_rows(scene, state)


def residual_add(scene: Scene, state: State) -> State:
    """`layers/layernorm.py`: the norm adds the rank's residual; shapes have to agree."""
    residual = scene.residual
    for has, needs in dict.fromkeys(zip(state.of, residual.of, strict=True)):
        held, own = state.tensors[has], residual.tensors[needs]
        if not same_tokens(held, own) and length(held) != length(own):
            raise ImpossibleError(
                f"a residual of {length(own)} tokens is added to {length(held)} tokens"
            )
    return produce(state, "residual", different=1)


def attention_gather(scene: Scene, state: State) -> State:
    """`layers/communicator.py`, `_scattered_to_tp_attn_full`: all-gather over attention TP."""
    if scene.deployment.config.attn_tp_size == 1:
        return state
    return all_gather(state, scene.layout.attn_tp)


STEPS: Mapping[str, Step] = {
    step.__name__: step
    for step in (
        routed_experts,
        all_to_all_experts,
        fp4_dispatch,
        fp4_combine,
        shared_sharded,
        shared_replicated,
        dense_mlp,
        dense_mlp_fully_dp,
        ep_all_reduce,
        moe_tp_all_reduce,
        tp_all_reduce,
        dp_reduce_scatterv,
        dp_reduce_scatter,
        dp_scatter,
        moe_cp_slice,
        residual_add,
        attention_gather,
    )
}


def _own_rows(scene: Scene, state: State) -> State:
    return by_rank(keep(state.ranks, scene.sizes, scene.owners), state.owed)
