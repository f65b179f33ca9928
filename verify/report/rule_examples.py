"""For each rule about a source: a line that breaks it, the line that keeps it, and a real case.

The cases are argued in docs/findings/triage.md; lines are shortened to what matters.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Example:
    """`wrong` and `right` are Python; `seen` names releases and files."""

    wrong: str
    right: str
    seen: str


EXAMPLES: dict[str, Example] = {
    "ep-tp-drift": Example(
        wrong="if ep_size > 1 and not AF: y = ep_all_reduce(y)  # the TP guard asks for RS too",
        right="if ep_size > 1 and not AF and not RS: y = ep_all_reduce(y)",
        seen="0.5.10 - 0.5.10.post1 qwen3_moe.py (#23734), 5.3 nats in decode",
    ),
    "flag-lost": Example(
        wrong="self.mlp(x, forward_batch)  # the layer has decided to fuse, nobody tells",
        right="self.mlp(x, forward_batch, should_allreduce_fusion=fuse)",
        seen="0.5.4.post1 - 0.5.4.post3 glm4_moe.py: the dual-stream path",
    ),
    "flag-misbound": Example(
        wrong="self.mlp(x, use_reduce_scatter)  # the second parameter is should_allreduce_fusion",
        right="self.mlp(x, use_reduce_scatter=use_reduce_scatter)",
        seen="none in 0.5.1 - 0.5.23; planted in tests",
    ),
    "group-too-narrow": Example(
        wrong="flashinfer_allreduce_norm(x, group=moe_ep)  # parts lie over moe_ep and moe_tp",
        right="flashinfer_allreduce_norm(x, group=tp)",
        seen="0.5.11 - 0.5.17 communicator.py with ep 2 of 4 (#32963)",
    ),
    "group-too-wide": Example(
        wrong="y = tensor_model_parallel_all_reduce(y)  # moe_dp_size copies of the experts in it",
        right="y = moe_tensor_model_parallel_all_reduce(moe_expert_parallel_all_reduce(y))",
        seen="0.5.9 - 0.5.23, several models with --moe-dp-size 2",
    ),
    "lost-addend": Example(
        wrong="shared = MLP(...)  # sharded; the block's rows are local, nobody sums slices",
        right="shared = MLP(..., tp_size=1 if rows_are_local else None)",
        seen="0.5.17 - 0.5.23 with --dwdp-size; 0.5.7 - 0.5.23 with FP4 all-gather",
    ),
    "lost-at-pipeline": Example(
        wrong="sent = PPProxyTensors({'hidden_states': x})  # x still owes its sum",
        right="should_fuse = ... and not is_last_layer_of_the_stage",
        seen="0.5.1 - 0.5.20 with fusion and --pp-size 2",
    ),
    "lost-past-end": Example(
        wrong="LayerCommunicator(...)  # not told is_last_layer",
        right="LayerCommunicator(..., is_last_layer=layer_id == num_layers - 1)",
        seen="0.5.11 - 0.5.20 qwen3_next.py",
    ),
    "lost-sum": Example(
        wrong="self.mlp = MLP(..., reduce_results=False)  # and nothing after it sums",
        right="self.mlp = MLP(..., reduce_results=True)",
        seen="0.5.10 - 0.5.20 sarvam_moe.py; 0.5.1 - 0.5.3 grok.py with EP",
    ),
    "missing-skip": Example(
        wrong="if tp_size > 1 and not should_allreduce_fusion: y = all_reduce(y)",
        right="if tp_size > 1 and not should_skip_post_experts_all_reduce(...): y = all_reduce(y)",
        seen="0.5.11 - 0.5.19 gpt_oss.py: output times ranks under attention DP (#37199)",
    ),
    "mixed-addend": Example(
        wrong="shared = MLP(..., reduce_results=True)  # its rows are local: other tokens mix in",
        right="shared = MLP(..., tp_size=1 if rows_are_local else None)",
        seen="0.5.17 - 0.5.23 with --dwdp-size",
    ),
    "producer-ignores-consumer": Example(
        wrong="down_proj = RowParallelLinear(...)  # reduces always; the layer may scatter or fuse",
        right="down_proj(x, skip_all_reduce=fuse or use_reduce_scatter)",
        seen="0.5.11 - 0.5.20 step3_vl.py, qwen2.py",
    ),
    "reduced-twice": Example(
        wrong="y = ep_all_reduce(experts(x)); y = all_reduce(y)  # over the same ranks",
        right="y = all_reduce(experts(x))",
        seen="none in 0.5.1 - 0.5.23; planted in tests",
    ),
    "reduces-after-combine": Example(
        wrong="if tp_size > 1: y = all_reduce(y)  # combine has summed it",
        right="if tp_size > 1 and get_moe_a2a_backend().is_none(): y = all_reduce(y)",
        seen="blocks that are built for no all-to-all backend and do not refuse one",
    ),
    "replicated-addend": Example(
        wrong="y = experts(x) + zero_experts(x)  # every rank adds it, then ranks are summed",
        right="y = all_reduce(experts(x)) + zero_experts(x)",
        seen="0.5.2 - 0.5.23 longcat_flash.py",
    ),
    "sharded-dense": Example(
        wrong="self.mlp = MLP(...)  # moe_dense_tp_size 1 leaves its rows to this rank alone",
        right="self.mlp = MLP(..., tp_size=1 if moe_dense_tp_size == 1 else None)",
        seen="0.5.22 - 0.5.23, twelve models",
    ),
    "sums-local-rows": Example(
        wrong="mlp = MLP(..., tp_size=1); fuse = True  # the next norm sums complete rows",
        right="fuse = should_fuse and not mlp_is_replicated",
        seen="0.5.10 - 0.5.21 sarvam_moe.py",
    ),
}
