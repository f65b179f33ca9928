"""Which cases there are: every block, every row that its deployments reach, every layout."""

from collections.abc import Iterator
from functools import lru_cache

from gpu_tests.cases import Case, Dtype, Experts, experts_for
from gpu_tests.specs import SPECS, ModelSpec
from oracles import SITES
from verify import truth
from verify.flags import flag_names, flag_tables
from verify.ledger.deployment import Deployment, Shared, deployments


def subjects(models: tuple[str, ...] = ()) -> tuple[str, ...]:
    """`model/Class.method` of every block with a migrated site, each once."""
    names = dict.fromkeys(site.id.rpartition("/")[0] for site in SITES)
    return tuple(name for name in names if not models or name.partition("/")[0] in models)


def check_guard(guard: str) -> None:
    """Raise `VerifyError` for a guard that is neither a name nor an expression of flags."""
    if guard not in ("helper", "oracle"):
        truth.evaluate(guard, flag_tables(), len(flag_names()))


def cases(
    *,
    world_size: int,
    guard: str = "helper",
    dtypes: tuple[Dtype, ...],
    experts: Experts = "torch",
    models: tuple[str, ...] = (),
) -> Iterator[Case]:
    """Every case on `world_size` ranks. A deployment that a block cannot tell apart comes once.

    `experts` are used where they take the dtype.
    """
    for dtype in dtypes:
        for subject in subjects(models):
            seen = set()
            for deployment in runnable(world_size):
                if deployment.shared != _shared(SPECS[subject.partition("/")[0]], deployment):
                    continue
                case = Case(
                    subject=subject,
                    deployment=deployment,
                    guard=guard,
                    dtype=dtype,
                    experts=experts_for(dtype, wanted=experts),
                )
                if case.communication not in seen:
                    seen.add(case.communication)
                    yield case


@lru_cache
def runnable(world_size: int) -> tuple[Deployment, ...]:
    """Deployments of `world_size` ranks whose communication this package carries out.

    Left to the ledger: all-to-all backends, whose combine is their own, context-parallel ranks
    that share tokens, and dense layers.
    """
    return tuple(
        weighted.deployment
        for weighted in deployments(max_world_size=world_size, min_world_size=world_size)
        if weighted.deployment.config.moe_a2a_backend == "none"
        and not weighted.deployment.shares_tokens_across_cp
        and not weighted.deployment.dense_fully_dp
    )


def _shared(spec: ModelSpec, deployment: Deployment) -> Shared:
    """Where 0.5.11's model file puts the shared experts in this deployment."""
    if not spec.shared:
        return "none"
    if deployment.fp4_allgather and spec.shared_whole_under_fp4:
        return "replicated"
    return "sharded"
