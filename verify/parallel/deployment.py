"""Legal parallel configurations of one layer, and all of them up to a number of ranks.

Legality is release 0.5.11's own: `server_args.py` (`_handle_data_parallelism`,
`_handle_context_parallelism`, `_handle_moe_kernel_config`, `_handle_a2a_moe`) and the conditions
in `layers/communicator.py` under which a step is taken at all.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from itertools import product
from typing import Literal, get_args

from helper import MoeConfig
from helper.config import A2A_BACKENDS, RUNNER_BACKENDS
from helper.predicates import uses_dp_reduce_scatterv, uses_flashinfer_fp4_allgather
from verify.parallel.layout import Layout
from verify.report.report import Json

Padding = Literal["max_len", "sum_len"]
TokenCounts = Literal["even", "uneven", "zero"]
Fusion = Literal[
    "off", "flashinfer", "flashinfer-declined", "no-fused-norm", "aiter", "aiter-declined"
]
Position = Literal["middle", "first", "last", "stage-end"]
Shared = Literal["none", "fused", "sharded", "replicated"]

QUANTIZATIONS = (None, "fp8", "mxfp8", "modelopt_fp8", "modelopt_fp4")


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One layer of one server: sizes and backends in `config`, the rest below.

    `padding` is how tokens of attention groups are laid out (`DpPaddingMode`) and `tokens` how
    many each group has; `fusion` which fused all-reduce + norm the next layer has and whether its
    kernel takes the tensor (`no-fused-norm`: the norm has no fused form); `position` of the layer
    (`stage-end`: the next layer is on another pipeline stage); `shared` where shared experts live
    (`fused`: as routed experts); `context_parallel_extend` whether context-parallel ranks hold
    different tokens (prefill) or the same ones (decode); `dense_fully_dp` is
    `moe_dense_tp_size=1`.
    """

    config: MoeConfig
    padding: Padding = "max_len"
    tokens: TokenCounts = "even"
    fusion: Fusion = "off"
    allow_reduce_scatter: bool = True
    position: Position = "middle"
    shared: Shared = "none"
    context_parallel_extend: bool = False
    dense_fully_dp: bool = False

    @cached_property
    def layout(self) -> Layout:
        """The groups of `config`."""
        return Layout(self.config)

    @property
    def sums_by_scatterv(self) -> bool:
        """The DP flag."""
        return uses_dp_reduce_scatterv(self.config)

    @property
    def may_scatter_sums(self) -> bool:
        """Whether the layer's communicator may, and groups are padded to one length for it."""
        return self.allow_reduce_scatter and self.padding == "max_len"

    @property
    def fp4_allgather(self) -> bool:
        """The FI flag."""
        return uses_flashinfer_fp4_allgather(self.config)

    @property
    def scattered(self) -> bool:
        """Whether an MoE block sees only its rank's own tokens (`ScatterMode.SCATTERED`)."""
        return self.config.moe_a2a_backend != "none" or self.fp4_allgather

    @property
    def shares_tokens_across_cp(self) -> bool:
        """Whether context-parallel ranks gather their tokens first (`ScatterMode.MOE_FULL`)."""
        return self.config.attn_cp_size > self.config.moe_dp_size

    def as_json(self) -> dict[str, Json]:
        """What differs from the simplest server, sizes always."""
        config = self.config
        sizes: dict[str, Json] = {
            "tp_size": config.tp_size,
            "ep_size": config.ep_size,
            "moe_dp_size": config.moe_dp_size,
            "dp_size": config.attn_dp_size,
            "attn_cp_size": config.attn_cp_size,
        }
        plain = MoeConfig()
        for name in ("moe_a2a_backend", "moe_runner_backend", "quantization"):
            if getattr(config, name) != getattr(plain, name):
                sizes[name] = getattr(config, name)
        if config.attn_dp_size > 1:
            sizes |= {"padding": self.padding, "tokens": self.tokens}
        for name in _LAYER_AXES:
            if getattr(self, name) != getattr(_PLAIN, name):
                sizes[name] = getattr(self, name)
        return sizes


_LAYER_AXES = (
    "fusion",
    "allow_reduce_scatter",
    "position",
    "shared",
    "context_parallel_extend",
    "dense_fully_dp",
)
_PLAIN = Deployment(config=MoeConfig())
_FLASHINFER_ONLY = ("flashinfer", "flashinfer-declined", "no-fused-norm")


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """A deployment and how many legal ones it stands for: they differ only in backend names."""

    deployment: Deployment
    stands_for: int


def deployments(*, max_world_size: int, min_world_size: int = 1) -> Iterator[Weighted]:
    """Every legal deployment, smallest world first, one for each class of equivalent backends.

    Not covered: attention data parallelism together with context parallelism (legal, but the
    layer's input is not modelled), two-batch overlap and speculative draft models.
    """
    for world_size in range(min_world_size, max_world_size + 1):
        for sizes in layouts(world_size):
            for config, stands_for in with_backends(sizes):
                for deployment in layers(config):
                    yield Weighted(deployment=deployment, stands_for=stands_for)


def layouts(world_size: int) -> Iterator[MoeConfig]:
    """Every legal choice of sizes for `world_size` ranks, least parallel first."""
    for moe_dp in _divisors(world_size):
        for ep in _divisors(world_size // moe_dp):
            # _handle_context_parallelism: moe_dp > 1 and ep > 1 leave no MoE tensor parallelism
            if moe_dp > 1 and ep > 1 and ep * moe_dp != world_size:
                continue
            for cp in _divisors(world_size):
                # _handle_context_parallelism: attn_cp_size != moe_dp_size needs moe_dp_size == 1
                if moe_dp not in (1, cp):
                    continue
                for dp in _divisors(world_size // cp) if cp == 1 else (1,):
                    yield MoeConfig(
                        tp_size=world_size,
                        ep_size=ep,
                        moe_dp_size=moe_dp,
                        attn_dp_size=dp,
                        attn_cp_size=cp,
                        # _handle_data_parallelism: dp_size == 1 turns attention DP off
                        enable_dp_attention=dp > 1,
                    )


@dataclass(frozen=True, kw_only=True)
class Backends:
    """The names a server is started with, as far as they decide who adds up."""

    moe_a2a_backend: str
    moe_runner_backend: str
    quantization: str | None
    disable_flashinfer_cutlass_moe_fp4_allgather: bool


def with_backends(sizes: MoeConfig) -> Iterator[tuple[MoeConfig, int]]:
    """One configuration for each class of backends that behave alike, and the class's size.

    A class is what the layer can tell apart: an all-to-all backend or none, and FI or not.
    """
    classes: dict[tuple[bool, bool], tuple[MoeConfig, int]] = {}
    for first, count in _classes(
        ep_is_one=sizes.ep_size == 1, ep_is_tp=sizes.ep_size == sizes.tp_size
    ):
        config = replace(sizes, **asdict(first))
        key = (config.moe_a2a_backend != "none", uses_flashinfer_fp4_allgather(config))
        known, so_far = classes.get(key, (config, 0))
        classes[key] = (known, so_far + count)
    yield from classes.values()


def with_every_backend(config: MoeConfig) -> Iterator[MoeConfig]:
    """`config` with each legal set of backend names of its class in `with_backends`."""
    fp4 = uses_flashinfer_fp4_allgather(config)
    for backends in _legal_with(config):
        other = replace(config, **asdict(backends))
        if uses_flashinfer_fp4_allgather(other) == fp4:
            yield other


def with_every_transport(config: MoeConfig) -> Iterator[MoeConfig]:
    """`config` with each all-to-all backend, where it has one, in the first legal set of names."""
    if config.moe_a2a_backend == "none":
        yield config
        return
    first = {each.moe_a2a_backend: each for each in reversed(_legal_with(config))}
    yield from (replace(config, **asdict(each)) for each in first.values())


def with_transport(config: MoeConfig, name: str) -> MoeConfig:
    """`config` with that all-to-all backend; one that 0.5.11 has not is a plug-in for it."""
    legal = {each.moe_a2a_backend: each for each in with_every_transport(config)}
    return legal.get(name, replace(config, moe_a2a_backend="customized"))


def _legal_with(config: MoeConfig) -> tuple[Backends, ...]:
    """Legal backends for the sizes of `config`, with an all-to-all backend where it has one."""
    has_one = config.moe_a2a_backend != "none"
    legal = _legal(ep_is_one=config.ep_size == 1, ep_is_tp=config.ep_size == config.tp_size)
    return tuple(each for each in legal if (each.moe_a2a_backend != "none") == has_one)


@lru_cache
def _legal(*, ep_is_one: bool, ep_is_tp: bool) -> tuple[Backends, ...]:
    return tuple(
        each for each in _all_backends() if is_legal(each, ep_is_one=ep_is_one, ep_is_tp=ep_is_tp)
    )


@lru_cache
def _classes(*, ep_is_one: bool, ep_is_tp: bool) -> tuple[tuple[Backends, int], ...]:
    """Legal backends by what can matter at all: an all-to-all backend, the inputs of FI."""
    classes: dict[tuple[bool, bool], list[Backends]] = {}
    for backends in _legal(ep_is_one=ep_is_one, ep_is_tp=ep_is_tp):
        may_be_fp4_allgather = (
            backends.moe_a2a_backend == "none"
            and backends.moe_runner_backend == "flashinfer_cutlass"
            and backends.quantization == "modelopt_fp4"
            and not backends.disable_flashinfer_cutlass_moe_fp4_allgather
        )
        key = (backends.moe_a2a_backend != "none", may_be_fp4_allgather)
        classes.setdefault(key, []).append(backends)
    return tuple((members[0], len(members)) for members in classes.values())


def _all_backends() -> Iterator[Backends]:
    for a2a, runner, quantization, disable in product(
        A2A_BACKENDS, RUNNER_BACKENDS, QUANTIZATIONS, (False, True)
    ):
        # "customized" is a plug-in: what its combine does is not upstream's to say
        if a2a != "customized":
            yield Backends(
                moe_a2a_backend=a2a,
                moe_runner_backend=runner,
                quantization=quantization,
                disable_flashinfer_cutlass_moe_fp4_allgather=disable,
            )


def is_legal(backends: Backends, *, ep_is_one: bool, ep_is_tp: bool) -> bool:
    """Whether 0.5.11's argument checks accept these backends with ep_size 1, tp_size or other."""
    a2a, runner = backends.moe_a2a_backend, backends.moe_runner_backend
    quantization = backends.quantization
    refusals = (
        # _handle_a2a_moe sets ep_size = tp_size for every backend it knows
        a2a != "none" and not ep_is_tp,
        a2a == "flashinfer" and runner != "flashinfer_cutlass",
        # _handle_moe_kernel_config, runner by runner
        runner in ("flashinfer_cutlass", "flashinfer_cutedsl") and not (ep_is_one or ep_is_tp),
        runner == "flashinfer_cutedsl" and a2a not in ("none", "deepep"),
        runner == "cutlass" and quantization in ("fp8", "mxfp8") and not ep_is_one,
        quantization not in _QUANTIZATIONS_OF.get(runner, QUANTIZATIONS),
        # mxfp8 overrides every other runner with flashinfer_trtllm
        quantization == "mxfp8" and runner not in _MXFP8_RUNNERS,
    )
    return not any(refusals)


_QUANTIZATIONS_OF: dict[str, tuple[str | None, ...]] = {
    "flashinfer_cutlass": ("modelopt_fp4", "modelopt_fp8", None),
    "flashinfer_cutedsl": ("modelopt_fp4",),
    "flashinfer_trtllm": ("modelopt_fp4", "fp8", "mxfp8", "modelopt_fp8", None),
    "flashinfer_trtllm_routed": ("fp8", "mxfp8", "modelopt_fp4", None),
}
_MXFP8_RUNNERS = ("cutlass", "flashinfer_trtllm", "flashinfer_trtllm_routed")


def layers(config: MoeConfig, *, fusions: tuple[Fusion, ...] | None = None) -> Iterator[Deployment]:
    """Every layer a server of this configuration can have, the simplest first.

    `fusions` are the fused sums that the release leaves there, None: those of 0.5.11.
    """
    fusions = _fusions(config) if fusions is None else fusions
    for padding, tokens in _paddings(config):
        for position in get_args(Position):
            # _handle_context_parallelism: no pipeline stages with MoE data parallelism
            if position == "stage-end" and config.moe_dp_size > 1:
                continue
            for fusion in fusions:
                for allow in (True, False):
                    for shared in _shared(config):
                        for extend in (False, True) if config.attn_cp_size > 1 else (False,):
                            for fully_dp in (False, True):
                                yield Deployment(
                                    config=config,
                                    padding=padding,
                                    tokens=tokens,
                                    fusion=fusion,
                                    allow_reduce_scatter=allow,
                                    position=position,
                                    shared=shared,
                                    context_parallel_extend=extend,
                                    dense_fully_dp=fully_dp,
                                )


def _paddings(config: MoeConfig) -> tuple[tuple[Padding, TokenCounts], ...]:
    """`DpPaddingMode.get_dp_padding_mode`; MAX_LEN pads, so that counts differ only in SUM_LEN."""
    if config.attn_dp_size == 1:
        return (("max_len", "even"),)
    return (
        ("max_len", "even"),
        ("sum_len", "even"),
        ("sum_len", "uneven"),
        ("sum_len", "zero"),
    )


def fusions_of(config: MoeConfig) -> tuple[Fusion, ...]:
    """Which fused all-reduces a server takes: `_handle_context_parallelism` refuses aiter's."""
    whole = config.attn_cp_size == config.moe_dp_size == 1
    return tuple(kind for kind in get_args(Fusion) if whole or not kind.startswith("aiter"))


def _fusions(config: MoeConfig) -> tuple[Fusion, ...]:
    """Which of them a layer of 0.5.11 can announce."""
    if config.tp_size == 1:
        return ("off",)
    # apply_flashinfer_allreduce_fusion: not under attention data parallelism
    refused: tuple[str, ...] = _FLASHINFER_ONLY if config.enable_dp_attention else ()
    # aiter's kernel does not do 6 ranks
    refused += ("aiter", "aiter-declined") if config.tp_size == 6 else ()
    return tuple(kind for kind in fusions_of(config) if kind not in refused)


def _shared(config: MoeConfig) -> tuple[Shared, ...]:
    """Behind an all-to-all backend nobody shards them; `layer.applies` knows each block's rule."""
    if config.moe_a2a_backend != "none":
        return ("none", "replicated")
    return ("none", "fused", "sharded", "replicated")


def _divisors(number: int) -> tuple[int, ...]:
    return tuple(size for size in range(1, number + 1) if number % size == 0)
