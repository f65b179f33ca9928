"""Collectives of a forward pass on GPUs, one at a time wrong.

There a sum is one of the engine's own kernels, NCCL through the engine's binding, or torch's
function, as it chooses by size; all of them are asked for through methods of its group, and a sum
that a norm completes through one function. `Collectives` stands before these instead.

Runs inside the engine's Python (standard library, torch and sglang).
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from verify.engines.inside.changes import DOUBLED, DROPPED, NAN
from verify.engines.sglang.serving.inside import corrupt

Arguments = dict[str, Any]
Original = Callable[..., Any]
_FUSION = "sglang.srt.layers.flashinfer_comm_fusion"
_FUSED = "flashinfer_allreduce_residual_rmsnorm"
_FUSED_NAMES = (
    "input_tensor",
    "residual",
    "weight",
    "eps",
    "max_token_num",
    "use_oneshot",
    "trigger_completion_at_end",
    "fp32_acc",
    "use_attn_tp_group",
)


class Collectives(corrupt.Collectives):
    """As its base, with another place to stand."""

    def install(self) -> None:
        """Take the places of the group's methods, and of the fused norm's function."""
        state: Any = importlib.import_module("sglang.srt.distributed.parallel_state")
        for name, (function, wrong) in METHODS.items():
            original = getattr(state.GroupCoordinator, name, None)
            if original is not None:
                setattr(state.GroupCoordinator, name, self._method(function, wrong, original))
        try:
            original = getattr(importlib.import_module(_FUSION), _FUSED)
        except (ImportError, AttributeError):
            return
        corrupt.replace(original, self._fused(original))

    def _method(self, function: str, wrong: Callable[..., Any], original: Original) -> Original:
        signature = inspect.signature(original)

        def method(*positional: Any, **named: Any) -> Any:
            bound = signature.bind(*positional, **named)
            bound.apply_defaults()
            arguments = bound.arguments
            group = arguments["self"]
            given = arguments.get("input_", arguments.get("input"))
            counts = isinstance(given, torch.Tensor) and given.is_floating_point()
            if not (self.active and counts and group.world_size > 1) or self._inside:
                return original(**arguments)
            # one method may call another
            self._inside = True
            try:
                if not self.met(function, group.ranks):
                    return original(**arguments)
                if self.how.startswith(corrupt.ELSEWHERE):
                    return _over(self.group, arguments, wrong)
                return wrong(original, arguments, self.how)
            finally:
                self._inside = False

        return method

    def _fused(self, original: Original) -> Original:
        def fused(*positional: Any, **named: Any) -> Any:
            # an operator of torch's has no signature of its own
            arguments = {**dict(zip(_FUSED_NAMES, positional, strict=False)), **named}
            group = _norm_group(over_attention=bool(arguments.get("use_attn_tp_group", True)))
            if not self.active or self._inside or group.world_size == 1:
                return original(**arguments)
            self._inside = True
            try:
                # it may decline, which every rank does alike
                if not self.met(corrupt.FUSED, group.ranks):
                    return original(**arguments)
                return _summed_in_norm(original, arguments, self.how, group)
            finally:
                self._inside = False

        return fused


def _norm_group(*, over_attention: bool) -> Any:
    """Whose sum the fused norm completes (flashinfer_comm_fusion.py:806 of 0.5.17)."""
    state: Any = importlib.import_module("sglang.srt.distributed.parallel_state")
    if over_attention:
        return state.get_attn_tp_group()
    experts = state.get_moe_ep_group()
    return experts if experts.world_size > 1 else state.get_moe_tp_group()


def _summed_in_norm(original: Original, arguments: Arguments, how: str, group: Any) -> Any:
    """Doubled: each part so many times as there are ranks. Dropped: the first rank's part only."""
    given = arguments["input_tensor"]
    if how == DOUBLED:
        given = given * group.world_size
    if how == DROPPED:
        given = given * float(group.rank_in_group == 0)
    result = original(**{**arguments, "input_tensor": given})
    if how == NAN:
        for table in result:
            if table is not None:
                table.fill_(float("nan"))
    return result


def _over(other: Any, arguments: Arguments, wrong: Callable[..., Any]) -> Any:
    """The same over another group of ranks, by torch."""
    if wrong is _in_place:
        dist.all_reduce(arguments["input_"], group=other)
        return None
    if wrong is _out_of_place:
        total = arguments["input_"].clone()
        dist.all_reduce(total, group=other)
        return total
    out, given = arguments["output"], arguments["input"]
    if wrong is _scatter:
        dist.reduce_scatter_tensor(out, given, group=other)
    else:
        dist.all_gather_into_tensor(out, given, group=other)
    return out


def _in_place(original: Original, arguments: Arguments, how: str) -> Any:
    """Doubled: as if summed again. Dropped: each rank keeps its own part."""
    tensor = arguments["input_"]
    if how == DROPPED:
        return None
    original(**arguments)
    _spoil(tensor, how, arguments["self"].world_size)
    return None


def _out_of_place(original: Original, arguments: Arguments, how: str) -> Any:
    if how == DROPPED:
        return arguments["input_"].clone()
    return _spoil(original(**arguments), how, arguments["self"].world_size)


def _scatter(original: Original, arguments: Arguments, how: str) -> Any:
    """Dropped: each rank's own part of the sum."""
    group, out, whole = arguments["self"], arguments["output"], arguments["input"]
    if how == DROPPED:
        return out.copy_(whole.chunk(group.world_size)[group.rank_in_group].view_as(out))
    original(**arguments)
    return _spoil(out, how, group.world_size)


def _scatterv(original: Original, arguments: Arguments, how: str) -> Any:
    group, whole = arguments["self"], arguments["input_"]
    result = original(**arguments)
    if how == DROPPED:
        sizes = arguments.get("sizes") or [result.shape[0]] * group.world_size
        return result.copy_(whole.split(list(sizes))[group.rank_in_group])
    return _spoil(result, how, group.world_size)


def _gather(original: Original, arguments: Arguments, how: str) -> Any:
    """Doubled: the first rank's part in the second's place. Dropped: only one's own part."""
    out, given = arguments["output"], arguments["input"]
    original(**arguments)
    parts = list(out.view(arguments["self"].world_size, *given.shape))
    if how == DROPPED:
        for part in parts:
            part.copy_(given)
    if how == DOUBLED:
        parts[1].copy_(parts[0])
    return _spoil(out, how, 1)


def _gatherv(original: Original, arguments: Arguments, how: str) -> Any:
    """Dropped: zero in the others' places."""
    group, given = arguments["self"], arguments["input_"]
    result = original(**arguments)
    whole = result[0] if isinstance(result, list) else result
    if how == DROPPED:
        sizes = arguments.get("sizes") or [given.shape[0]] * group.world_size
        for rank, part in enumerate(whole.split(list(sizes))):
            if rank != group.rank_in_group:
                part.zero_()
    _spoil(whole, how, 1)
    return result


def _spoil(tensor: torch.Tensor, how: str, count: int) -> torch.Tensor:
    if how == NAN:
        return tensor.fill_(float("nan"))
    return tensor.mul_(count) if how == DOUBLED else tensor


METHODS = {
    "_all_reduce_in_place": ("all_reduce", _in_place),
    "_all_reduce_out_place": ("all_reduce", _out_of_place),
    "_reduce_scatter_tensor": ("reduce_scatter_tensor", _scatter),
    "reduce_scatterv": (corrupt.SCATTERV, _scatterv),
    "_all_gather_into_tensor": ("all_gather_into_tensor", _gather),
    "all_gatherv": (corrupt.GATHERV, _gatherv),
}
"""Method of the engine's group -> what it is called here, and how it is made wrong.

Their names are those of 0.5.11 to 0.5.23.
"""
