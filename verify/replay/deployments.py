"""The legal deployments that in-process ranks can execute, smallest first."""

from collections.abc import Iterator

from helper import MoeConfig
from verify.ledger.deployment import Deployment, Fusion, layouts, with_backends

ONE_RANK = Deployment(config=MoeConfig())
TOKENS = 4


def executable(world_size: int) -> Iterator[Deployment]:
    """Every deployment of `world_size` ranks without all-to-all backends.

    They have no CPU version, so that their dispatch and combine cannot be executed. Of context
    parallelism only decoding is executed, where its ranks hold the same tokens: a prefill splits
    them inside attention, which is replaced here.
    """
    for sizes in layouts(world_size):
        for config, _ in with_backends(sizes):
            if config.moe_a2a_backend == "none":
                yield from _batches(config)


def _batches(config: MoeConfig) -> Iterator[Deployment]:
    if config.attn_dp_size == 1:
        fusions: tuple[Fusion, ...] = ("off", "flashinfer") if config.tp_size > 1 else ("off",)
        for fusion in fusions:
            yield Deployment(config=config, fusion=fusion)
        if config.tp_size > 1:
            yield Deployment(config=config, dense_fully_dp=True)
        return
    yield Deployment(config=config, padding="max_len")
    yield Deployment(config=config, padding="sum_len")
    yield Deployment(config=config, padding="sum_len", tokens="uneven")
    yield Deployment(config=config, padding="sum_len", tokens="zero")
    yield Deployment(config=config, padding="max_len", dense_fully_dp=True)


def tokens_of(deployment: Deployment) -> tuple[int, ...]:
    """How many tokens each attention data-parallel group has."""
    groups = deployment.config.attn_dp_size
    match deployment.tokens:
        case "uneven":
            return tuple(TOKENS * (1 + group % 2) for group in range(groups))
        case "zero":
            return (*[TOKENS] * (groups - 1), 0)
    return (TOKENS,) * groups


def row_of(deployment: Deployment) -> str:
    """The flags this deployment sets, in flag order, where the model computes them all."""
    config = deployment.config
    absorbed = deployment.dp_reduce_scatterv or deployment.fp4_allgather
    scatters = config.attn_dp_size > 1 and deployment.padding == "max_len" and not absorbed
    flags = (
        deployment.fusion != "off",
        scatters,
        deployment.dp_reduce_scatterv,
        deployment.fp4_allgather,
    )
    return "".join(str(int(flag)) for flag in flags)
