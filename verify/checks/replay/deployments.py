"""The legal deployments that in-process ranks can execute, smallest first."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from helper import MoeConfig
from verify.engines.sources import runtime
from verify.logic.flags import flag_names
from verify.logic.truth import row_bits
from verify.parallel.deployment import Deployment, Fusion, layouts, with_backends
from verify.parallel.row import flags_of, mode_of, number_of
from verify.report.report import Json

LOCAL_SIZE = runtime().local_size
TOKENS = 4
# what moves tokens is imitated, the machine is one vendor's: where a model asks for another's, what
# it does there is not seen
ALL_TO_ALL = ("deepep", "mooncake", "nixl", "flashinfer", "pplx", "mori", "ascend_fuseep")


@dataclass(frozen=True, kw_only=True)
class Execution(Deployment):
    """A deployment and what `prove` does not know of it.

    `stages` are pipeline stages, of `config.tp_size` ranks each. `all_to_all` is the backend's name
    in place of the one in `config`, which stands for all of them. With `dwdp` every rank fetches
    all experts' weights and computes its own tokens.
    """

    stages: int = 1
    all_to_all: str = ""
    dwdp: bool = False

    @property
    def world_size(self) -> int:
        """Ranks in all stages."""
        return self.config.tp_size * self.stages

    @property
    def backend(self) -> str:
        """What the server is told."""
        return self.all_to_all or self.config.moe_a2a_backend

    @property
    def server(self) -> "Execution":
        """The same server, whatever batch it gets: it starts, and builds a model, once for all."""
        return replace(self, padding="max_len", tokens="even")

    @property
    def is_proved(self) -> bool:
        """Whether `prove` knows it."""
        return not (self.all_to_all or self.dwdp or self.stages > 1)

    def as_json(self) -> dict[str, Json]:
        """What differs from the simplest server, sizes always."""
        values = super().as_json()
        if self.all_to_all:
            values["moe_a2a_backend"] = self.all_to_all
        if self.stages > 1:
            values["pp_size"] = self.stages
        if self.dwdp:
            values[LOCAL_SIZE] = self.config.tp_size
        return values


ONE_RANK = Execution(config=MoeConfig())


def executable(world_size: int) -> Iterator[Execution]:
    """Every deployment of `world_size` ranks that can be executed.

    Of context parallelism only decoding, where its ranks hold the same tokens: a prefill splits
    them inside attention, which is replaced here.
    """
    for sizes in layouts(world_size):
        for config, _ in with_backends(sizes):
            if config.moe_a2a_backend == "none":
                yield from _batches(config)
            elif config.attn_cp_size == 1 and config.attn_dp_size in (1, world_size):
                yield from _exchanges(config)
    if world_size > 1:
        yield from _whole_experts(world_size)
    if world_size % 2 == 0 and world_size > 2:
        for sizes in layouts(world_size // 2):
            if sizes.attn_dp_size == sizes.attn_cp_size == 1:
                yield Execution(config=sizes, stages=2)
                yield Execution(config=sizes, stages=2, fusion="flashinfer")


def _batches(config: MoeConfig) -> Iterator[Execution]:
    if config.attn_dp_size == 1:
        fusions: tuple[Fusion, ...] = ("off", "flashinfer") if config.tp_size > 1 else ("off",)
        for fusion in fusions:
            yield Execution(config=config, fusion=fusion)
        if config.tp_size > 1:
            yield Execution(config=config, dense_fully_dp=True)
        return
    yield Execution(config=config, padding="max_len")
    yield Execution(config=config, padding="sum_len")
    yield Execution(config=config, padding="sum_len", tokens="uneven")
    yield Execution(config=config, padding="sum_len", tokens="zero")
    yield Execution(config=config, padding="max_len", dense_fully_dp=True)


def _exchanges(config: MoeConfig) -> Iterator[Execution]:
    for name in ALL_TO_ALL:
        deployment = Execution(config=config, all_to_all=name)
        yield deployment
        if config.attn_dp_size > 1:
            yield replace(deployment, padding="sum_len", tokens="uneven")


def _whole_experts(ranks: int) -> Iterator[Execution]:
    # _handle_dwdp sets all of these
    config = MoeConfig(tp_size=ranks, ep_size=ranks, attn_dp_size=ranks, enable_dp_attention=True)
    deployment = Execution(config=config, dwdp=True, dense_fully_dp=True)
    yield deployment
    yield replace(deployment, padding="sum_len", tokens="uneven")


def tokens_of(deployment: Deployment) -> tuple[int, ...]:
    """How many tokens each attention data-parallel group has."""
    groups = deployment.config.attn_dp_size
    match deployment.tokens:
        case "uneven":
            return tuple(TOKENS * (1 + group % 2) for group in range(groups))
        case "zero":
            return (*[TOKENS] * (groups - 1), 0)
    return (TOKENS,) * groups


def row_of(deployment: Execution, published: Mapping[str, bool] | None = None) -> str:
    """The row that this deployment is in, where the model asks for every flag.

    `published` are flags as the release's own functions answered when it ran, which then hold; a
    release that has no such function has none of them.
    """
    # experts that are fetched compute a rank's own tokens
    mode = "scattered" if deployment.dwdp else mode_of(deployment, dense=False)
    flags = flags_of(deployment, mode=mode)
    return row_bits(number_of({**flags, **(published or {})}), len(flag_names()))
