"""The one list of reasons to skip the post-experts all-reduce.

Rows, tables, proofs, the predicate and the plan derive from `SKIP_REASONS`: adding a reason is one
entry here. Facts from sgl-project/sglang#23748 and release 0.5.11.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from helper.config import MoeConfig
from helper.layer import Group, Layer
from helper.predicates import (
    should_use_dp_reduce_scatterv,
    should_use_flashinfer_cutlass_moe_fp4_allgather,
    uses_flashinfer_fp4_allgather,
)

Path = Literal["EP", "TP"]
PATHS: tuple[Path, ...] = ("EP", "TP")
Form = Literal["in place", "scatter", "dispatch"]
"""How a sum is completed: where the rows are; handing attention groups their own rows back; or
inside the block, by the dispatcher, for the rank's own tokens."""


@dataclass(frozen=True, kw_only=True)
class SkipReason:
    """Why a later step makes the block's own reduction wrong.

    `flag` is the two-letter name used in rows and tables, `name` upstream's name. `paths` are the
    block's sums that the step stands in for. `completed_by` names the step for people, `step` for
    the layer; it sums `over` that group (`partial`: over whichever the output is partial over),
    and `form` says where. `completes` is the plan's question: whether a layer has the step and
    takes it, given that rows and group fit. `value` is the pull request's: it reads the flag from
    the runtime configuration; None means that forward() receives it as a keyword argument called
    `name`.
    """

    flag: str
    name: str
    paths: tuple[Path, ...]
    completed_by: str
    step: str
    over: Group | Literal["partial"]
    form: Form
    completes: Callable[[MoeConfig, Layer], bool]
    value: Callable[[], bool] | None = None


SKIP_REASONS: tuple[SkipReason, ...] = (
    SkipReason(
        flag="AF",
        name="should_allreduce_fusion",
        paths=("EP", "TP"),
        completed_by="the next layer's prepare_attn, fused with residual add and norm",
        step="fused norm",
        over="partial",
        form="in place",
        completes=lambda config, layer: layer.next == "fused norm",
    ),
    SkipReason(
        flag="RS",
        name="use_reduce_scatter",
        paths=("EP", "TP"),
        completed_by="LayerCommunicator's reduce-scatter after the MLP",
        step="reduce_scatter",
        over="tp",
        form="scatter",
        completes=lambda config, layer: layer.equal_rows,
    ),
    SkipReason(
        flag="DP",
        name="dp_reduce_scatterv",
        paths=("EP", "TP"),
        value=should_use_dp_reduce_scatterv,
        completed_by="LayerCommunicator's reduce_scatterv over the TP group",
        step="reduce_scatterv",
        over="tp",
        form="scatter",
        # it is handed one number of rows for each attention group, and needs one for each rank
        completes=lambda config, layer: config.attn_tp_size == 1,
    ),
    SkipReason(
        flag="FI",
        name="flashinfer_fp4_allgather",
        paths=("TP",),
        value=should_use_flashinfer_cutlass_moe_fp4_allgather,
        completed_by="the standard dispatcher's combine, by reduce_scatterv over the TP group",
        step="combine",
        over="tp",
        form="dispatch",
        completes=lambda config, layer: uses_flashinfer_fp4_allgather(config),
    ),
)


def any_reason(*, path: Path, values: Mapping[str, bool]) -> bool:
    """Whether some reason applies to `path`: the given values first, then the configuration.

    `values` maps a reason's `name` to its value. Of the reasons left out, those that forward()
    receives are False and the others are read from the runtime configuration; `NoConfigError`
    is raised when the answer depends on it and none is set.
    """
    applicable = [reason for reason in SKIP_REASONS if path in reason.paths]
    return any(values.get(reason.name, False) for reason in applicable) or any(
        reason.value()
        for reason in applicable
        if reason.value is not None and reason.name not in values
    )


def should_skip_post_experts_all_reduce(
    *,
    is_tp_path: bool,
    use_reduce_scatter: bool = False,
    should_allreduce_fusion: bool = False,
) -> bool:
    """Whether a later step completes the block's partial sum, so that the block must not.

    The predicate of sgl-project/sglang#23748 (release 0.5.11, `layers/moe/utils.py`).
    `is_tp_path` tells the TP all-reduce from the EP one; the other two come from the layer and
    are False in models that do not compute them. Raises `NoConfigError` when the answer depends
    on a runtime configuration and none is set.
    """
    return any_reason(
        path="TP" if is_tp_path else "EP",
        values={
            "use_reduce_scatter": use_reduce_scatter,
            "should_allreduce_fusion": should_allreduce_fusion,
        },
    )
