"""Collectives of a forward pass by the place in the engine that asks for them, one at a time wrong.

`Collectives` stands before torch's own functions, which every collective of the engine ends in. A
site is the first file and line outside of the engine's own plumbing, with the module that runs:
`layers/linear.py:1543 model.layers.*.self_attn.o_proj`. Only tensors of floating numbers count:
what ranks tell each other about sizes decides, and carries no value.

Runs inside the engine's Python (standard library and torch).
"""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from verify.engines.inside.changes import DOUBLED, DROPPED, NAN, Ranks, other_groups, place
from verify.engines.inside.modules import Running

# what passes a collective on for others; their callers are the places that matter
PLUMBING = (
    "srt/distributed/",
    "srt/layers/dp_attention.py",
    "srt/runtime_context.py",
    "srt/utils/custom_op.py",
)

SUMS = ("all_reduce",)
SCATTERS = ("reduce_scatter_tensor", "reduce_scatter_single", "reduce_scatter")
GATHERS = ("all_gather_into_tensor", "all_gather_single", "all_gather")
# of GPUs (groups.py): of different sizes, and a sum with the residual and norm behind it
SCATTERV, GATHERV, FUSED = "reduce_scatterv", "all_gatherv", "all_reduce with norm"
# what is counted and cannot be corrupted here, so that nobody takes it for covered
OTHERS = ("all_to_all_single", "all_to_all", "gather", "scatter", "broadcast", "send", "recv")

ELSEWHERE = "over "


@dataclass(frozen=True, kw_only=True, order=True)
class Site:
    """Where a collective is asked for, which one, and over which ranks (by all ranks' groups)."""

    place: str
    module: str
    function: str
    size: int

    def words(self) -> list[Any]:
        """As JSON."""
        return [self.place, self.module, self.function, self.size]

    @classmethod
    def of(cls, words: list[Any]) -> "Site":
        """From `words`."""
        place, module, function, size = words
        return cls(place=place, module=module, function=function, size=size)


@dataclass(kw_only=True)
class Collectives:
    """Counts sites while `active`; at `wrong` a collective does what `how` says instead.

    `root` is the folder of the engine's package.
    """

    running: Running
    root: Path
    active: bool = False
    wrong: Site | None = None
    how: str = ""
    group: Any = None
    seen: dict[Site, int] = field(default_factory=dict)
    ranks: dict[Site, list[int]] = field(default_factory=dict)
    struck: int = 0
    _inside: bool = False

    def install(self) -> None:
        """Take the places of torch's functions, in every module of the engine that has them."""
        for name in (*SUMS, *SCATTERS, *GATHERS, *OTHERS):
            original = getattr(dist, name, None)
            if original is not None:
                replace(original, self._standing_before(name, original))

    def corrupt(self, site: Site | None, how: str = "", group: Any = None) -> None:
        """From now on `site` is wrong; None: all are right."""
        self.wrong, self.how, self.group, self.struck = site, how, group, 0

    def met(self, function: str, ranks: Sequence[int]) -> bool:
        """Count the site that asks for `function` now; whether it is the wrong one."""
        site = Site(
            place=place(self.root, PLUMBING),
            module=self.running.inner(),
            function=function,
            size=len(ranks),
        )
        self.seen[site] = self.seen.get(site, 0) + 1
        self.ranks[site] = list(ranks)
        self.struck += site == self.wrong
        return site == self.wrong

    def _standing_before(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(original)

        def collective(*positional: Any, **named: Any) -> Any:
            if not self.active or self._inside:
                return original(*positional, **named)
            bound = signature.bind(*positional, **named)
            bound.apply_defaults()
            arguments = bound.arguments
            # one of torch's functions may call another
            self._inside = True
            try:
                return self._meet(name, original, arguments)
            finally:
                self._inside = False

        return collective

    def _meet(self, name: str, original: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        first = next(iter(arguments.values()))
        tensor = first[0] if isinstance(first, list) else first
        ranks = dist.get_process_group_ranks(arguments.get("group") or dist.group.WORLD)
        if not tensor.is_floating_point() or len(ranks) == 1:
            return original(**arguments)
        operation = arguments.get("op") or dist.ReduceOp.SUM
        function = name if operation == dist.ReduceOp.SUM else f"{name} {operation}"
        if not self.met(function, ranks):
            return original(**arguments)
        if self.how.startswith(ELSEWHERE):
            return original(**{**arguments, "group": self.group})
        if name in OTHERS:
            raise NotImplementedError(f"{name}: no corruption is known")
        if name in SUMS:
            return _sum(original, arguments, self.how)
        scatters = name in SCATTERS
        return (_scatter if scatters else _gather)(original, arguments, self.how)


def hows(site: Site) -> tuple[str, ...]:
    """In which ways a site can be wrong without another group."""
    if site.function in (*SUMS, *SCATTERS, *GATHERS, SCATTERV, FUSED):
        return DOUBLED, DROPPED
    if site.function == GATHERV:
        return (DROPPED,)
    # the largest of the largest is the largest
    return (DROPPED,) if site.function.split(" ")[0] in (*SUMS, *SCATTERS) else ()


def elsewhere(
    words: Sequence[Any], own: Sequence[Ranks], groups: Mapping[str, Sequence[Ranks]]
) -> list[str]:
    """The groups, by name, over which a site could be wrong: other ranks than its `own`.

    `own` and `groups` have each rank's ranks.
    """
    _, _, function, size = words
    if function in (SCATTERV, GATHERV, FUSED):
        return []
    return other_groups(own, groups, size=None if function in SUMS else size)


def _sum(original: Callable[..., Any], arguments: dict[str, Any], how: str) -> Any:
    """Doubled: summed again. Dropped: each rank keeps its own part."""
    if how == DROPPED:
        return None
    result = original(**arguments)
    if how == NAN:
        arguments["tensor"].fill_(float("nan"))
    if how == DOUBLED:
        original(**arguments)
    return result


def _scatter(original: Callable[..., Any], arguments: dict[str, Any], how: str) -> Any:
    """Doubled: what is scattered was summed already. Dropped: each rank's own part of the sum."""
    out, given, *_ = arguments.values()
    whole = torch.cat(given) if isinstance(given, list) else given
    group = arguments.get("group")
    place, count = dist.get_rank(group), dist.get_world_size(group)
    if how == DROPPED:
        out.copy_(whole.chunk(count)[place].view_as(out))
        return None
    result = original(**arguments)
    if how == NAN:
        out.fill_(float("nan"))
    if how == DOUBLED:
        out.mul_(count)
    return result


def _gather(original: Callable[..., Any], arguments: dict[str, Any], how: str) -> Any:
    """Doubled: the first rank's part twice, the second's never. Dropped: only one's own part."""
    out, given, *_ = arguments.values()
    count = dist.get_world_size(arguments.get("group"))
    result = original(**arguments)
    parts = out if isinstance(out, list) else list(out.view(count, *given.shape))
    if how == DROPPED:
        for part in parts:
            part.copy_(given)
    if how == DOUBLED:
        parts[1].copy_(parts[0])
    if how == NAN:
        for part in parts:
            part.fill_(float("nan"))
    return result


def replace(original: Any, new: Any) -> None:
    """Put `new` where modules of the engine, or torch's public names, have `original`."""
    for name, module in list(sys.modules.items()):
        if module is None or not name.startswith(("sglang", "torch.distributed", "verify.")):
            continue
        # inside torch the functions call each other: only their public names change
        if name.startswith("torch.distributed") and name != "torch.distributed":
            continue
        for key, value in list(vars(module).items()):
            if value is original:
                setattr(module, key, new)
