"""One case: a model's block, one deployment, and who decides whether the block reduces."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

from gpu_tests.blocks import DENSE, DenseSite, sites_of
from gpu_tests.ranks import Group
from gpu_tests.specs import SPECS, ModelSpec, dense_layer, structure, widened, without_shared
from gpu_tests.tokens import token_plan
from helper import should_skip_post_experts_all_reduce, use_config
from oracles import Site
from verify.logic import truth
from verify.logic.flags import flag_names, flag_tables
from verify.logic.truth import row_bits
from verify.parallel.deployment import Deployment
from verify.parallel.layout import Layout
from verify.parallel.row import flags_of, mode_of, number_of
from verify.parallel.scene import Mode

Dtype = Literal["float32", "bfloat16"]
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16")
Library = Literal["torch", "flashinfer"]
LIBRARIES: tuple[Library, ...] = ("torch", "flashinfer")
Producer = Literal[
    "experts", "FP4 all-gather", "all-to-all", "fetched experts", "dense MLP", "whole dense MLP"
]
# flashinfer's fused MoE refuses float32 ("requested input combination", 0.6.7.post3 on Hopper)
FLASHINFER_DTYPES: tuple[Dtype, ...] = ("bfloat16",)


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """Whose kernels compute the experts, and whose the all-reduce + residual add + RMSNorm."""

    experts: Library = "torch"
    norm: Library = "torch"

    def taking(self, dtype: Dtype) -> "Kernels":
        """Those that a case of `dtype` runs on where these are there."""
        return self if dtype in FLASHINFER_DTYPES else ON_TORCH


ON_TORCH = Kernels()


@dataclass(frozen=True, kw_only=True)
class Case:
    """`subject` is `model/Class.method`; `guard` is `helper`, `oracle` or an expression of flags.

    An expression says, like an oracle's guard, when the block *reduces*, on both paths. A dense MLP
    has its own guard under `helper` and `oracle`. `kernels` says what the layer runs on.
    """

    subject: str
    deployment: Deployment
    guard: str
    dtype: Dtype
    kernels: Kernels = ON_TORCH

    @property
    def sites(self) -> tuple[Site | DenseSite, ...]:
        """The block's reductions in the order it carries them out: EP before TP."""
        return sites_of(self.subject)

    @property
    def reached_sites(self) -> tuple[Site | DenseSite, ...]:
        """Those that the layer's forward() comes by.

        Behind an all-to-all backend it takes another method, and a whole MLP's linear layers have
        no ranks to reduce over.
        """
        return () if self.producer in ("all-to-all", "whole dense MLP") else self.sites

    @property
    def spec(self) -> ModelSpec:
        """The layer's structure; flashinfer's kernels need wider rows than counting does.

        Models of one structure have one specification here, and its weights.
        """
        spec = structure(SPECS[self.subject.partition("/")[0]])
        if self.dense:
            spec = dense_layer(spec)
        elif self.deployment.shared in ("none", "fused"):
            spec = without_shared(spec)
        return spec if self.kernels == ON_TORCH else widened(spec)

    @property
    def dense(self) -> bool:
        """Whether the layer's MLP is a dense one."""
        return self.subject == DENSE.block

    @property
    def producer(self) -> Producer:
        """What computes the partial sums, and who brings it the tokens."""
        deployment = self.deployment
        if self.dense:
            return "whole dense MLP" if deployment.dense_fully_dp else "dense MLP"
        if deployment.fp4_allgather:
            return "FP4 all-gather"
        return "experts" if deployment.config.moe_a2a_backend == "none" else "all-to-all"

    @property
    def mode(self) -> Mode:
        """Which tokens the MLP is given."""
        return mode_of(self.deployment, dense=self.dense)

    @property
    def accepts(self) -> tuple[str, ...]:
        """The flags the block's forward() receives."""
        return self.sites[0].accepts

    @property
    def flags(self) -> dict[str, bool]:
        """The row that the layer is in; a flag that forward() does not accept is never raised."""
        return flags_of(
            self.deployment,
            mode=self.mode,
            hears_fusion="AF" in self.accepts,
            may_reduce_scatter="RS" in self.accepts,
        )

    @property
    def row(self) -> str:
        """The flags as bits in flag order."""
        return row_bits(number_of(self.flags), len(flag_names()))

    @property
    def communication(self) -> Hashable:
        """Equal for cases of one subject that move and add the same rows between the same ranks."""
        deployment, flags = self.deployment, self.flags
        config = deployment.config
        return (
            (config.tp_size, config.ep_size, config.moe_dp_size),
            (config.attn_dp_size, config.attn_cp_size, deployment.context_parallel_extend),
            self.producer,
            tuple(flags.values()),
            token_plan(deployment),
            deployment.padding,
            fused_groups(deployment) if flags["AF"] else None,
            deployment.shared,
        )

    @property
    def alike(self) -> Hashable:
        """Equal for cases that ranks cannot tell apart: built, placed and reduced the same."""
        layout, announced = self.deployment.layout, self.flags["AF"]
        reduced = tuple(
            (
                site_groups(site, layout),
                self.reduces(site, announced=announced),
                self.reduces(site, announced=False),
            )
            for site in self.reached_sites
        )
        return (self.spec, self.dtype, self.kernels, self.deployment, self.row, reduced)

    @property
    def title(self) -> str:
        """For messages: subject, row, sizes, producer where it is not the usual, dtype."""
        config = self.deployment.config
        producer = "" if self.producer in ("experts", "dense MLP") else f"{self.producer} "
        return (
            f"{self.subject} row {self.row} tp{config.tp_size} ep{config.ep_size} "
            f"moe_dp{config.moe_dp_size} dp{config.attn_dp_size} cp{config.attn_cp_size} "
            f"{producer}{self.dtype}"
        )

    def reduces(self, site: Site | DenseSite, *, announced: bool) -> bool:
        """Whether the block reduces at `site`, its group having more than one rank.

        `announced` is the layer's AF: the last layer of a case has none to announce it to.
        """
        flags = {**self.flags, "AF": announced}
        if self.guard == "helper" and isinstance(site, Site):
            with use_config(self.deployment.config):
                return not should_skip_post_experts_all_reduce(
                    is_tp_path=site.path == "TP",
                    **{keyword: flags[flag] for keyword, flag in site.passes.items()},
                )
        guard = site.guard if self.guard in ("helper", "oracle") else self.guard
        reduces = truth.evaluate(guard, flag_tables(), len(flag_names()))
        return bool(reduces >> number_of(flags) & 1)


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


def site_groups(site: Site | DenseSite, layout: Layout) -> tuple[Group, ...]:
    """The groups a site's collective sums over."""
    return {"tp": layout.tp, "moe_ep": layout.ep, "moe_tp": layout.moe_tp}[site.size_world]
