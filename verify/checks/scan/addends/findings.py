"""Addends of the wrong kind become findings, one for a place however many layers show it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple, get_args

from verify.checks.scan.addends.judge import ASKED, OF_BACKEND, Addends, Cause, Fault, Local
from verify.checks.scan.environment import variables
from verify.checks.scan.findings import (
    BACKEND,
    LOCAL_ROWS,
    LOST,
    handed_over,
    related,
    shown_conditions,
    shown_consumer,
)
from verify.checks.scan.roots import shown_layers
from verify.checks.scan.server.launched import Judged, Launched, size_of
from verify.checks.scan.server.models import built_for
from verify.checks.scan.server.platforms import NAMES
from verify.engines.sources import reading
from verify.interpreter.index import Class, Index
from verify.interpreter.values import Place
from verify.logic.truth import table_bits
from verify.report.report import LEAVES, SUMS_UP, Finding, Related

ENGINE = reading()
FLAGS, ROLES, HOLDS, SAID = ENGINE.flags, ENGINE.roles, ENGINE.constraints, ENGINE.said
REGISTRIES = ENGINE.files.registries
_CLASS = re.compile(r"^class (\w+)", re.MULTILINE)
# what a module says that is built for a cause. Data-parallel weights come with attention DP; copies
# of the experts with context-parallel attention, for which a model that sums by itself must care
WORDS: Mapping[Cause, re.Pattern[str]] = {
    "dispatched": HOLDS.attention_group,
    "local-work": HOLDS.attention_group,
    "backend": ASKED,
    "unmoved": ASKED,
    "unsent": ASKED,
    "copies": HOLDS.attention_group,
    "own-copies": HOLDS.copies,
    "context": HOLDS.copies,
}
# what it takes besides where the module does not say it
UNSAID: Mapping[Cause, str] = {
    "dispatched": "attention data parallelism, of which this model's code says nothing",
    "local-work": "attention data parallelism, of which this model's code says nothing",
    "backend": "an all-to-all backend, of which this model's code says nothing",
    "unmoved": "an all-to-all backend, of which this model's code says nothing",
    "unsent": "an all-to-all backend, of which this model's code says nothing",
    "copies": "attention context parallelism, of which this model's code says nothing",
    "own-copies": "attention context parallelism, of which this model's code says nothing",
    "context": "attention context parallelism, of which this model's code says nothing",
    "dense": "a model without routed experts, for which the option is not meant",
}
# what is wrong with them is that, or over which ranks, they are summed up afterwards
SUMMED = ("replicated-addend", "group-too-narrow")
# the device that a launch is for unless it says otherwise
USUAL = {"cuda"}
Key = tuple[str, Place]


@dataclass(eq=False)
class Broken:
    """One rule broken at one place, over all layers that show it."""

    rule: str
    place: Place
    fault: Fault
    rows: int = 0
    backends: set[str] = field(default_factory=set)
    layers: set[str] = field(default_factory=set)
    meant: bool = False
    shown: list[tuple[Class, Fault, tuple[str, ...]]] = field(default_factory=list)

    def add(self, cls: Class, fault: Fault, backends: tuple[str, ...]) -> None:
        """Another layer, or another consumer, that shows it."""
        self.shown.append((cls, fault, backends))
        if _plainness(fault) < _plainness(self.fault):
            self.fault = fault
        self.rows |= fault.rows
        self.backends |= set(backends)
        self.layers.add(cls.name)
        self.meant = self.meant or (fault.meant and _reachable(cls, fault, self.place))


class Asked(NamedTuple):
    """A layer and what is wrong in it: which launches show it?

    `row`: of flags, to which they lead, where they do; `asks`: the conditions without which it is
    not so, which may ask for options; `files`: what may say what they mean.
    """

    layer: Class
    cause: Cause
    row: str
    backends: tuple[str, ...]
    asks: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(eq=False)
class Collected:
    """What all layers showed.

    `launches` is what the server takes of it, once somebody has asked.
    """

    broken: dict[Key, Broken] = field(default_factory=dict)
    launches: dict[Key, Launched] = field(default_factory=dict)
    refused: list[Finding] = field(default_factory=list)
    untold: set[str] = field(default_factory=set)

    def add(self, cls: Class, addends: Addends) -> None:
        """Count one layer's run."""
        self.untold |= {f"{place.file}:{place.line}" for place in addends.untold}
        for fault in addends.faults:
            backends = tuple(supported(cls, fault.backends))
            if fault.cause in OF_BACKEND and not backends:
                continue
            if not built_for(cls, fault.conditions):
                continue
            place = fault.places[-2] if len(fault.places) > 1 else fault.places[-1]
            rule = rule_of(fault)
            one = self.broken.setdefault(
                (f"{rule} {fault.cause}", place), Broken(rule, place, fault)
            )
            one.add(cls, fault, backends)

    def asked(self) -> tuple[Asked, ...]:
        """Every layer with what is wrong in it and the backends with which it is."""
        found = {
            _asked(cls, fault, backends)
            for one in self.broken.values()
            for cls, fault, backends in one.shown
        }
        # one layer's launches together: its constructor is followed for all of them
        return tuple(sorted(found, key=lambda a: (a.layer.module.path, a.layer.line, *a[1:])))

    def launched(self, answers: Mapping[Asked, Judged | None]) -> None:
        """Keep what a server can be launched into; the rest is `refused`."""
        for key, one in list(self.broken.items()):
            kept = Broken(one.rule, one.place, one.fault)
            launched, taken = Launched(one.fault.cause), []
            for cls, fault, backends in one.shown:
                judged = answers[_asked(cls, fault, backends)]
                left = launched.heard(cls.name, judged, backends)
                if left is None:
                    continue
                kept.add(cls, fault, left)
                launch = judged and judged.launch
                if launch:
                    needed = variables(cls.module.index, fault.environment)
                    taken.append((*size_of(launch, needed), _plainness(fault), launch, fault))
            if not kept.shown:
                self.refused.append(replace(_finding(one), refused=launched.refusals))
                del self.broken[key]
                continue
            if taken:
                # one layer's row, launch and variables: another's do not lead there
                *_, launched.launch, kept.fault = min(taken, key=lambda one: one[:-2])
            self.broken[key], self.launches[key] = kept, launched

    def kinds_at(self, key: tuple[str, int, int]) -> set[str]:
        """What is wrong with the call at (file, line, column), by what happens to the sum."""
        return {KINDS[one.fault.kind] for one in self.broken.values() if one.place.key == key}

    def findings(self) -> tuple[Finding, ...]:
        """The findings, in no particular order."""
        return tuple(
            _told(one, self.launches[key].told(_finding(one)) if key in self.launches else None)
            for key, one in self.broken.items()
        )


def _asked(cls: Class, fault: Fault, backends: tuple[str, ...]) -> Asked:
    files = {place.file: None for place in fault.places} if fault.asks else {}
    # what is owed to a flag's sum is launched into that flag's rows
    row = fault.row if fault.cause == "gathered" else ""
    return Asked(cls, fault.cause, row, tuple(sorted(backends)), fault.asks, tuple(files))


def _with_variables(finding: Finding, broken: Broken) -> Finding:
    """The finding with the environment variables without which it does not happen."""
    needed = variables(broken.shown[0][0].module.index, broken.fault.environment)
    if not needed or not finding.launch:
        return finding
    reach = "option" if finding.reach == "default" else finding.reach
    return replace(finding, launch=(*needed, *finding.launch), reach=reach)


def _told(broken: Broken, launched: Finding | None) -> Finding:
    """The finding with all that it takes: what its model's code does not say is a need, too."""
    finding = _with_variables(launched or _finding(broken), broken)
    devices = set.intersection(*(set(fault.platforms) for _, fault, _ in broken.shown)) - USUAL
    if devices:
        needs = tuple(NAMES[device] for device in sorted(devices))
        finding = replace(finding, needs=(*finding.needs, *needs), reach="conditional")
    if broken.meant:
        return finding
    unsaid = UNSAID[broken.fault.cause]
    return replace(finding, needs=(*finding.needs, unsaid), reach="conditional")


def rule_of(fault: Fault) -> str:
    """The id of the rule that the fault breaks."""
    if fault.cause == "dense":
        return "sharded-dense"
    if fault.cause in get_args(Local):
        return LOCAL_ROWS
    if fault.cause == "unsent":
        return LOST
    return RULES[fault.kind]


def _plainness(fault: Fault) -> tuple[int, int]:
    return (fault.row.count("1"), len(fault.conditions))


def _reachable(cls: Class, fault: Fault, place: Place) -> bool:
    """Whether the model is built for what the fault takes: attention DP, backends by name."""
    words = WORDS.get(fault.cause)
    own = cls.module.index.module(place.file)
    texts = [ancestor.module.text for ancestor in cls.ancestors] + ([own.text] if own else [])
    return words is None or any(words.search(text) for text in texts)


def supported(cls: Class, backends: tuple[str, ...]) -> Iterator[str]:
    """The backends without those that the source keeps a list of models for, without this one."""
    named = set(_CLASS.findall(cls.module.text)) if backends else set()
    for backend in backends:
        registers = f"def register_{backend}_model"
        lists = [text for text in _registries(cls.module.index) if registers in text]
        if not lists or any(f'"{name}"' in text for text in lists for name in named):
            yield backend


@lru_cache(maxsize=1)
def _registries(index: Index) -> tuple[str, ...]:
    """The files in which this source may keep lists of models."""
    found = (index.module(path) for path in index.tree.under(REGISTRIES) if "registry" in path)
    return tuple(module.text for module in found if module is not None)


def _finding(broken: Broken) -> Finding:
    place, fault = broken.place, broken.fault
    what, sums = MESSAGES[broken.rule]
    where, taker = _where(broken), shown_consumer(fault.consumer)
    if fault.summed:
        by = fault.summed
        taker = f"{by.collective} in {ENGINE.local(by.file)}:{by.line}"
    completed = fault.completed if broken.rule in SUMMED else None
    return Finding(
        rule=broken.rule,
        message=what.format(consumer=taker, where=where),
        sums=sums.format(consumer=taker),
        fix=FIXES[broken.rule],
        subject=shown_layers(broken.layers),
        kind=KINDS[fault.kind],
        file=place.file,
        line=place.line,
        cls=place.cls,
        method=place.method,
        row=fault.row,
        rows=tuple(table_bits(broken.rows, len(FLAGS))),
        takes=TAKES[fault.cause],
        conditions=shown_conditions(fault.conditions),
        related=(
            *_built(fault.places, place),
            *handed_over(fault.consumer),
            *((related(completed, SUMS_UP),) if completed else ()),
        ),
    )


def _built(places: tuple[Place, ...], own: Place) -> Iterator[Related]:
    """The calls around the finding's place, which is one of them: outer ones, then inner ones."""
    at = places.index(own)
    yield from (related(place, "builds what holds it") for place in places[:at])
    yield from (related(place, LEAVES) for place in places[at + 1 :])


def _where(broken: Broken) -> str:
    match broken.fault.cause:
        case "dispatched":
            return SAID.combined
        case "backend" | "unmoved" | "unsent" as cause:
            named = " or ".join(sorted(broken.backends))
            moves = "" if cause == "backend" else ", which moves no tokens to their experts"
            return (
                f"with the all-to-all backend {named} (which of them the server takes for this "
                f"model was not read){moves}"
            )
        case "local-work":
            return SAID.local_work
        case "dense" | "resummed":
            return "with moe_dense_tp_size 1"
        case "split":
            return "with experts split over two groups (moe_ep_size and moe_tp_size above 1)"
        case "declined":
            return "where the fused kernel declines a tensor whose sum was left to it"
        case "fused-local":
            return "with moe_dense_tp_size 1, where the layer leaves its sum to the next norm"
        case "copies" | "own-copies":
            return "with several copies of the experts (moe_dp_size above 1)"
        case "fused-copies":
            return "with several copies of the experts (moe_dp_size above 1) and a fused next norm"
        case "context":
            return "where a prompt's tokens are split over the ranks of a context group"
        case "fused":
            return "with shared experts fused into the routed ones and expert parallelism"
    return "where the sum is still owed"


# the settings without which each of them does not happen
TAKES: Mapping[Cause, tuple[str, ...]] = {
    "gathered": (),
    "dispatched": (ROLES.combines,),
    "backend": BACKEND,
    "unmoved": BACKEND,
    "unsent": BACKEND,
    "local-work": (f"{ENGINE.launches.local_size} > 1",),
    "dense": ("moe_dense_tp_size == 1",),
    "split": ("moe_ep_size > 1", "moe_tp_size > 1"),
    "declined": (ROLES.fuses, "moe_ep_size > 1"),
    "copies": ("moe_dp_size > 1",),
    "own-copies": ("moe_dp_size > 1",),
    "fused-copies": (ROLES.fuses, "moe_dp_size > 1"),
    "fused-local": (ROLES.fuses, "moe_dense_tp_size == 1"),
    "resummed": ("moe_dense_tp_size == 1",),
    "fused": ("moe_ep_size > 1",),
    "context": ("attn_cp_size > 1", "enable_prefill_cp"),
}
RULES: Mapping[str, str] = {
    "replicated": "replicated-addend",
    "lost": "lost-addend",
    "mixed": "mixed-addend",
    "narrow": "group-too-narrow",
    "wide": "group-too-wide",
}
KINDS: Mapping[str, str] = {
    "replicated": "double",
    "lost": "lost",
    "mixed": "mixed",
    "narrow": "lost",
    "wide": "double",
}
MESSAGES: Mapping[str, tuple[str, str]] = {
    "replicated-addend": (
        "{where}, every rank adds a value that it holds in full to its partial sum",
        "{consumer} sums it up afterwards, so that it counts once for every rank",
    ),
    "lost-addend": (
        "{where}, each rank has its own rows, but this layer beside the routed experts is sharded",
        "nobody: {consumer} takes each rank's rows as they are, so that each rank keeps its own "
        "slice only",
    ),
    "mixed-addend": (
        "{where}, each rank has its own rows, but this layer beside the routed experts is sharded",
        "it sums its own output up, over ranks that hold other tokens",
    ),
    "group-too-narrow": (
        "{where}, the layer's output is split over more ranks than it is summed over",
        "{consumer}, over fewer ranks than hold slices: what the others hold is lost",
    ),
    "group-too-wide": (
        "{where}, the routed experts' output is summed up over the whole tensor-parallel group",
        "every copy is in the sum: it counts once for each copy",
    ),
    "sums-local-rows": (
        "{where}, rows that only this rank has are summed up",
        "the sum runs over ranks that hold other tokens",
    ),
    "lost-sum": (
        "{where}, each rank gives its own experts its own rows, and no others",
        "nobody: {consumer} takes what comes out for complete, so that each token is without "
        "other ranks' experts",
    ),
    "sharded-dense": (
        "{where}, a dense MLP works on rows that only this rank has, but this one is sharded",
        "nobody, or other ranks' tokens are summed: {consumer} takes the MLP's output for complete",
    ),
}
FIXES: Mapping[str, str] = {
    "replicated-addend": "add it on one rank only while the sum is owed, or after the reduction",
    "lost-addend": "build it replicated wherever rows are rank-local, by the same condition",
    "mixed-addend": "build it replicated wherever rows are rank-local, by the same condition",
    "group-too-narrow": "sum it up over the group that it is sharded over",
    "group-too-wide": "sum it up over the expert and the MoE tensor-parallel group",
    "sums-local-rows": "do not sum, and do not leave a sum, where rows are rank-local",
    "lost-sum": "move the tokens to their experts, or refuse the backend for this model",
    "sharded-dense": "build it replicated where the flag is set, or refuse the flag for this model",
}
