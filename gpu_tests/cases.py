"""One case: a model's block, one deployment, and who decides whether the block reduces."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from gpu_tests.ranks import Group
from gpu_tests.specs import SPECS, ModelSpec, widened
from gpu_tests.tokens import token_plan
from helper import should_skip_post_experts_all_reduce, use_config
from oracles import SITES, Site
from verify import truth
from verify.flags import flag_names, flag_tables
from verify.layout import Layout
from verify.ledger.deployment import Deployment

Dtype = Literal["float32", "bfloat16"]
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16")
Experts = Literal["torch", "flashinfer"]
EXPERTS: tuple[Experts, ...] = ("torch", "flashinfer")
# its fused MoE refuses float32 ("requested input combination", 0.6.7.post3 on Hopper)
FLASHINFER_DTYPES: tuple[Dtype, ...] = ("bfloat16",)


@dataclass(frozen=True, kw_only=True)
class Case:
    """`subject` is `model/Class.method`; `guard` is `helper`, `oracle` or an expression of flags.

    An expression says, like an oracle's guard, when the block *reduces*, on both paths. `experts`
    says which kernels compute them, and with them the fused all-reduce + norm.
    """

    subject: str
    deployment: Deployment
    guard: str
    dtype: Dtype
    experts: Experts = "torch"

    @property
    def sites(self) -> tuple[Site, ...]:
        """The block's reductions in the order it carries them out: EP before TP."""
        return sites_of(self.subject)

    @property
    def spec(self) -> ModelSpec:
        """The block's structure; flashinfer's kernels need wider rows than counting does."""
        spec = SPECS[self.subject.partition("/")[0]]
        return widened(spec) if self.experts == "flashinfer" else spec

    @property
    def accepts(self) -> tuple[str, ...]:
        """The flags the block's forward() receives."""
        return self.sites[0].accepts

    @property
    def flags(self) -> dict[str, bool]:
        """The row that the layer is in; a flag that forward() does not accept is never raised."""
        deployment = self.deployment
        raised = {"AF": announces_fusion(deployment), "RS": uses_reduce_scatter(deployment)}
        return {
            **{name: value and name in self.accepts for name, value in raised.items()},
            "DP": deployment.dp_reduce_scatterv,
            "FI": deployment.fp4_allgather,
        }

    @property
    def row(self) -> str:
        """The flags as bits in flag order."""
        return "".join(str(int(self.flags[name])) for name in flag_names())

    @property
    def communication(self) -> Hashable:
        """Equal for cases of one subject that move and add the same rows between the same ranks."""
        deployment = self.deployment
        return (
            deployment.config,
            self.row,
            token_plan(deployment),
            deployment.padding,
            fused_groups(deployment) if self.flags["AF"] else None,
            deployment.shared,
        )

    @property
    def title(self) -> str:
        """For messages: subject, row, sizes, dtype."""
        config = self.deployment.config
        return (
            f"{self.subject} row {self.row} tp{config.tp_size} ep{config.ep_size} "
            f"moe_dp{config.moe_dp_size} dp{config.attn_dp_size} cp{config.attn_cp_size} "
            f"{self.dtype}"
        )

    def reduces(self, site: Site, *, announced: bool) -> bool:
        """Whether the block reduces at `site`, its group having more than one rank.

        `announced` is the layer's AF: the last layer of a case has none to announce it to.
        """
        flags = {**self.flags, "AF": announced}
        if self.guard == "helper":
            with use_config(self.deployment.config):
                return not should_skip_post_experts_all_reduce(
                    is_tp_path=site.path == "TP",
                    **{keyword: flags[flag] for keyword, flag in site.passes.items()},
                )
        guard = site.guard if self.guard == "oracle" else self.guard
        row = int("".join(str(int(flags[name])) for name in flag_names()), 2)
        return bool(truth.evaluate(guard, flag_tables(), len(flag_names())) >> row & 1)


def experts_for(dtype: Dtype, *, wanted: Experts) -> Experts:
    """The kernels that a case of `dtype` runs on where `wanted` are there."""
    return wanted if dtype in FLASHINFER_DTYPES else "torch"


@lru_cache
def sites_of(subject: str) -> tuple[Site, ...]:
    """The sites of `model/Class.method`."""
    return tuple(site for site in SITES if site.id.rpartition("/")[0] == subject)


def announces_fusion(deployment: Deployment) -> bool:
    """AF, where the block can hear of it: `should_fuse_mlp_allreduce_with_next_layer`."""
    return (
        deployment.fusion != "off"
        and deployment.position != "last"
        and deployment.config.tp_size > 1
        and not deployment.shares_tokens_across_cp
    )


def fused_groups(deployment: Deployment) -> tuple[Group, ...]:
    """Over which ranks the next layer's add + norm sums when AF left the sum to it.

    `prepare_attn`, `_forward_with_allreduce_fusion`, `flashinfer_comm_fusion.py`. Groups of one
    rank where the sum is lost: the tensor's mark does not survive being sent to the next pipeline
    stage, and the norm whose flashinfer kernel declined runs without a sum.
    """
    config, layout, fusion = deployment.config, deployment.layout, deployment.fusion
    alone = tuple((rank,) for rank in range(config.tp_size))
    if deployment.position == "stage-end":
        return alone
    if fusion == "no-fused-norm" or (fusion.startswith("aiter") and config.enable_dp_attention):
        return layout.moe_tp
    if fusion == "flashinfer-declined" or config.ep_size == config.moe_tp_size == 1:
        return alone
    if fusion.startswith("aiter"):
        return layout.tp
    return layout.ep if config.ep_size > 1 else layout.moe_tp


def uses_reduce_scatter(deployment: Deployment) -> bool:
    """RS: `should_use_reduce_scatter`; only where tokens are scattered after the block at all."""
    return (
        deployment.allow_reduce_scatter
        and deployment.padding == "max_len"
        and deployment.config.attn_dp_size > 1
        and not deployment.scattered
    )


def site_group(site: Site, layout: Layout) -> tuple[Group, ...]:
    """The groups a site's collective sums over."""
    return {"tp": layout.tp, "moe_ep": layout.ep, "moe_tp": layout.moe_tp}[site.size_world]
