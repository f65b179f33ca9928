"""Which cases there are: every block, every row that its deployments reach, every layout."""

from collections.abc import Hashable, Iterator
from functools import lru_cache

from gpu_tests.blocks import DENSE, subjects
from gpu_tests.cases import ON_TORCH, Case, Dtype, Kernels
from gpu_tests.planned import PLAN, planned_cases
from gpu_tests.specs import SPECS
from verify.logic import truth
from verify.logic.flags import flag_names, flag_tables
from verify.parallel.deployment import Deployment, Shared, deployments


def check_guard(guard: str) -> None:
    """Raise `VerifyError` for a guard that is neither a name nor an expression of flags."""
    if guard not in ("helper", "oracle", PLAN):
        truth.evaluate(guard, flag_tables(), len(flag_names()))


def cases(
    *,
    world_size: int,
    guard: str = "helper",
    dtypes: tuple[Dtype, ...],
    kernels: Kernels = ON_TORCH,
    models: tuple[str, ...] = (),
) -> Iterator[Case]:
    """Every case on `world_size` ranks. A deployment that a block cannot tell apart comes once.

    `kernels` are used where they take the dtype.
    """
    if guard == PLAN:
        yield from planned_cases(
            world_size=world_size, dtypes=dtypes, kernels=kernels, models=models
        )
        return
    for dtype in dtypes:
        for subject in subjects(models):
            for deployment in told_apart(subject, world_size):
                yield Case(
                    subject=subject,
                    deployment=deployment,
                    guard=guard,
                    dtype=dtype,
                    kernels=kernels.taking(dtype),
                )


@lru_cache(maxsize=1024)
def told_apart(subject: str, world_size: int) -> tuple[Deployment, ...]:
    """Of the deployments in which the block communicates alike, the first.

    Who guards the block and in which dtype makes no difference to that.
    """
    first: dict[Hashable, Deployment] = {}
    for deployment in runnable(world_size):
        if deployment.shared == placed_shared(subject, deployment):
            case = Case(subject=subject, deployment=deployment, guard="helper", dtype="float32")
            first.setdefault(case.communication, deployment)
    return tuple(first.values())


@lru_cache
def runnable(world_size: int) -> tuple[Deployment, ...]:
    """Every legal deployment of `world_size` ranks, as the ledger lists them."""
    return tuple(
        weighted.deployment
        for weighted in deployments(max_world_size=world_size, min_world_size=world_size)
    )


def has_shared_experts(subject: str) -> bool:
    """Whether the block's model has shared experts."""
    return subject != DENSE.block and SPECS[subject.partition("/")[0]].shared > 0


def placed_shared(subject: str, deployment: Deployment) -> Shared:
    """Where 0.5.11's model file puts the block's shared experts in this deployment."""
    if not has_shared_experts(subject):
        return "none"
    if deployment.config.moe_a2a_backend != "none":
        return "replicated"
    whole_under_fp4 = SPECS[subject.partition("/")[0]].shared_whole_under_fp4
    return "replicated" if deployment.fp4_allgather and whole_under_fp4 else "sharded"
