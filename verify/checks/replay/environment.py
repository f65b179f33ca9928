"""What a server does before the first forward pass: arguments, groups, flags, one batch.

All of it is the release's own code, called under the names that have lasted: arguments are passed
by name, and only those that the release's signature knows.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any, cast

import torch

from verify.checks.replay.deployments import Execution
from verify.checks.replay.model_config import PLAIN_MODEL
from verify.emulator.ranks import Rank
from verify.emulator.standin import StandIn
from verify.emulator.tree import Namespace, Tree
from verify.emulator.witness import embed
from verify.engines.sources import runtime

RUNTIME = runtime()
_ATTENTION = SimpleNamespace(
    get_cuda_graph_seq_len_fill_value=lambda: 1, late_layer_num_tokens=lambda batch: None
)
_NO_GRAPH = SimpleNamespace(bs=(), max_bs=0, backend="disabled")


def call(function: Callable[..., Any], known: Mapping[str, Any]) -> Any:
    """Call with those of `known` that the signature names; what it needs besides is None."""
    given: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in known:
            given[name] = known[name]
        elif parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        ):
            given[name] = None
    return function(**given)


def start(tree: Tree, rank: Rank, deployment: Execution) -> None:
    """Configure one rank of a server, as its scheduler process does on start."""
    arguments = server_arguments(tree, deployment)
    _publish(tree, rank, arguments)
    config = deployment.config
    state = tree.module(RUNTIME.state)
    call(
        state["init_distributed_environment"],
        {
            "world_size": rank.world_size,
            "rank": rank.rank,
            "local_rank": rank.rank,
            "backend": "nccl",
            "distributed_init_method": "env://",
            "moe_a2a_backend": deployment.backend,
        },
    )
    call(
        state["initialize_model_parallel"],
        {
            "tensor_model_parallel_size": config.tp_size,
            "expert_model_parallel_size": config.ep_size,
            "attention_data_parallel_size": config.attn_dp_size,
            "attention_context_model_parallel_size": config.attn_cp_size,
            "moe_data_model_parallel_size": config.moe_dp_size,
            "pipeline_model_parallel_size": deployment.stages,
            RUNTIME.local_size: config.tp_size if deployment.dwdp else 1,
            "backend": "nccl",
        },
    )
    known = {
        "server_args": arguments,
        "model_config": PLAIN_MODEL,
        **_dp_attention(deployment, rank),
    }
    attention = tree.module(RUNTIME.attention)
    for name in ("initialize_dp_attention", "init_dp_gathered_buffer"):
        if attention.binds(name):
            call(attention[name], known)
    moe = tree.module(RUNTIME.flags)
    if moe.binds("initialize_moe_config"):
        call(moe["initialize_moe_config"], known)


def server_arguments(tree: Tree, deployment: Execution) -> Any:
    """The release's own ServerArgs, through its own constructor."""
    cls = tree.module(RUNTIME.arguments)["ServerArgs"]
    config = deployment.config
    fuses = deployment.fusion == "flashinfer"
    wanted = {
        # the name for which releases skip reading a model from disk
        "model_path": "dummy",
        "device": "cuda",
        "tp_size": config.tp_size,
        "ep_size": config.ep_size,
        "moe_dp_size": config.moe_dp_size,
        "dp_size": config.attn_dp_size,
        "attn_cp_size": config.attn_cp_size,
        "pp_size": deployment.stages,
        RUNTIME.local_size: config.tp_size if deployment.dwdp else 1,
        "enable_dp_attention": config.enable_dp_attention,
        "moe_a2a_backend": deployment.backend,
        "moe_runner_backend": config.moe_runner_backend,
        "quantization": config.quantization,
        "enable_flashinfer_allreduce_fusion": fuses,
        "flashinfer_allreduce_fusion_backend": "trtllm" if fuses else None,
        "disable_shared_experts_fusion": True,
        "moe_dense_tp_size": 1 if deployment.dense_fully_dp else None,
        "attention_backend": "fa3",
        "cuda_graph_config": SimpleNamespace(prefill=_NO_GRAPH, decode=_NO_GRAPH),
    }
    known = inspect.signature(cls).parameters
    return cls(**{name: value for name, value in wanted.items() if name in known})


def make_batch(tree: Tree, deployment: Execution, tokens: tuple[int, ...]) -> Any:
    """The rank's batch, padded and laid out by the release; `tokens` per attention group."""
    module = tree.module(RUNTIME.batch)
    attention = tree.module(RUNTIME.attention)
    group = attention_dp_rank(tree)
    count = tokens[group]
    cls = module["ForwardBatch"]
    batch = cls.__new__(cls)
    for field in dataclasses.fields(cls):
        factory = field.default_factory
        default = None if field.default is dataclasses.MISSING else field.default
        value = default if factory is dataclasses.MISSING else factory()
        object.__setattr__(batch, field.name, value)
    extend = deployment.padding == "sum_len"
    mode = module["ForwardMode"]
    batch.forward_mode = (mode.EXTEND if extend else mode.DECODE) if count else mode.IDLE
    batch.is_extend_in_batch = extend
    batch.batch_size = batch.seq_lens_sum = count
    # token ids tell the tokens of all groups apart, and none is padding's zero
    batch.input_ids = torch.arange(count) + 1 + sum(tokens[:group])
    for name in ("req_pool_indices", "out_cache_loc"):
        setattr(batch, name, torch.zeros(count, dtype=torch.int64))
    # a draft masks the first position
    batch.positions = torch.arange(count) + 1
    batch.seq_lens = torch.ones(count, dtype=torch.int64)
    batch.seq_lens_cpu = torch.ones(count, dtype=torch.int64)
    batch.lora_ids = [None] * count
    if deployment.config.enable_dp_attention:
        batch.global_num_tokens_cpu = list(tokens)
        batch.global_num_tokens_for_logprob_cpu = list(tokens)
        batch.global_num_tokens_gpu = torch.tensor(tokens)
        batch.prepare_mlp_sync_batch(_ModelRunner())
    else:
        batch.dp_padding_mode = attention["DpPaddingMode"].get_default_mode_in_cuda_graph()
        call(
            attention["set_dp_buffer_len"],
            {
                "global_dp_buffer_len": count,
                "local_dp_buffer_len": count,
                "num_tokens": count,
                "dp_max_padding": True,
            },
        )
    # what a draft model gets from its target, whose hidden states are those of the same tokens
    batch.spec_info = SimpleNamespace(hidden_states=embed(batch.input_ids))
    return batch


def forward_pass(tree: Tree, batch: Any) -> AbstractContextManager[None]:
    """What the release has in force while a forward pass runs; nothing before release 0.5.13."""
    module = _optional(tree, RUNTIME.context)
    if module is None:
        return nullcontext()
    context = call(module["ForwardContext"], {RUNTIME.attention_backend: _ATTENTION})
    known = {"ctx": context, "forward_batch": batch}
    return cast("AbstractContextManager[None]", call(module["forward_context"], known))


def published(tree: Tree) -> dict[str, bool]:
    """The flags of the configuration by the release's own functions; False where it has none."""
    module = tree.module(RUNTIME.flags)
    return {
        flag: module.binds(name) and bool(module[name]())
        for flag, name in RUNTIME.published.items()
    }


def answered(tree: Tree, model: Any, batch: Any) -> dict[str, bool]:
    """The flags that the release's own communicator answers the first layer with experts.

    Where the release has no communicators, what the stage around the experts tells them, all False
    if that is nothing; none are there where the layer has no communicator.
    """
    with forward_pass(tree, batch):
        if _optional(tree, RUNTIME.communicator) is None:
            told = (RUNTIME.told(part, batch) for part in _around_experts(model))
            return next(filter(None, told), dict.fromkeys(RUNTIME.answered, False))
        for owner in _around_experts(model):
            if any(hasattr(owner, name) for name in RUNTIME.answered.values()):
                return {
                    flag: hasattr(owner, name) and bool(getattr(owner, name)(batch))
                    for flag, name in RUNTIME.answered.items()
                }
    return {}


def _around_experts(model: Any) -> Iterator[Any]:
    """What the layers with experts hold, in their order."""
    for part in model.modules():
        if any(RUNTIME.experts.match(type(inner).__name__) for inner in part.modules()):
            yield from vars(part).values()


def attention_dp_rank(tree: Tree) -> int:
    """Which attention data-parallel group the release puts this rank in."""
    attention = tree.module(RUNTIME.attention)
    if attention.binds("get_attention_dp_rank"):
        return int(attention["get_attention_dp_rank"]())
    return int(tree.module(RUNTIME.settings)[RUNTIME.sizes]().attn_dp_rank)


class _ModelRunner:
    """What batch preparation asks the model runner: every optional feature is off."""

    model_config = PLAIN_MODEL

    def __getattr__(self, name: str) -> Any:
        if name == RUNTIME.attention_backend:
            return _ATTENTION
        if name.startswith(("enable_", "is_", "use_")):
            return False
        return StandIn(f"model_runner.{name}")

    def attn_tp_sequence_sharded(self, tokens: int) -> bool:
        """Sequence parallelism is off."""
        return False


def _publish(tree: Tree, rank: Rank, arguments: Any) -> None:
    context = _optional(tree, RUNTIME.settings)
    if context is not None and context.binds("publish"):
        known: dict[str, Any] = {"server_args": arguments, "role": "scheduler"}
        if context.binds("SpawnRanks"):
            known["ranks"] = context["SpawnRanks"](world_rank=rank.rank, gpu_id=0)
        call(context["publish"], known)
        return
    module = tree.module(RUNTIME.arguments)
    if module.binds("set_global_server_args_for_scheduler"):
        module["set_global_server_args_for_scheduler"](arguments)
        return
    # before there was a global object, a dictionary held the few arguments layers read
    manager = tree.module(RUNTIME.older_settings)
    names = manager["GLOBAL_SERVER_ARGS_KEYS"]
    manager["global_server_args_dict"].update({name: getattr(arguments, name) for name in names})


def _dp_attention(deployment: Execution, rank: Rank) -> dict[str, Any]:
    """What releases before 0.5.4 hand over one by one."""
    config = deployment.config
    return {
        "enable_dp_attention": config.enable_dp_attention,
        "tp_rank": rank.rank % config.tp_size,
        "tp_size": config.tp_size,
        "dp_size": config.attn_dp_size,
        "moe_dense_tp_size": 1 if deployment.dense_fully_dp else None,
        "pp_size": deployment.stages,
    }


def _optional(tree: Tree, name: str) -> Namespace | None:
    try:
        return tree.module(name)
    except ModuleNotFoundError:
        return None
