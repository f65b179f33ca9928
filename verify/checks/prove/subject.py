"""Whose answer is judged: guards, as the rows in which a block leaves its reductions out."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal, NamedTuple

from helper import Path
from oracles import SITES, Site
from verify.logic import truth
from verify.logic.flags import argument_flags, flag_names, flag_tables, helper_skips

Producer = Literal["one-site", "two-site", "dense"]
SharedRule = Literal["any", "none", "sharded for FI", "replicated for FI"]


@dataclass(frozen=True, kw_only=True)
class Guards:
    """A block's reductions and the rows (truth tables) in which it skips each, and its layer.

    `producer`: `one-site` reduces once over the TP group, by `skip_tp`; `two-site` over EP by
    `skip_ep` and over MoE-TP by `skip_tp`; `dense` is a dense MLP ending in a row-parallel linear.
    `accepts` names the layer flags that forward() takes: a layer computes AF only for a block that
    takes it. The remaining fields say what the decoder layer does: whether its communicator may
    reduce-scatter (None: where the block can be told), whether it tags a fused tensor for the next
    layer, whether it knows that it is the last, whether its model completes a fused sum before a
    pipeline stage ends, how the block builds shared experts (`any`: all ways are judged), whether
    it adds them before its own reductions or after, and whether an all-to-all backend reaches
    these sites.
    """

    producer: Producer
    skip_tp: int
    skip_ep: int = 0
    accepts: frozenset[str] = frozenset()
    allows_reduce_scatter: bool | None = None
    tags_fusion: bool = True
    knows_last_layer: bool = True
    completes_stage: bool = False
    shared_experts: SharedRule = "any"
    adds_shared: Literal["before", "after"] = "before"
    reached_by_all_to_all: bool = False

    def skips(self, path: Path, row: int) -> bool:
        """Whether the reduction of `path` is left out in `row`."""
        return bool((self.skip_tp if path == "TP" else self.skip_ep) >> row & 1)

    @property
    def may_reduce_scatter(self) -> bool:
        """Whether the layer's communicator is built with `allow_reduce_scatter=True`."""
        if self.allows_reduce_scatter is None:
            return "RS" in self.accepts
        return self.allows_reduce_scatter


class Answer(NamedTuple):
    """What a block leaves out."""

    skips_ep: bool
    skips_tp: bool

    @property
    def words(self) -> str:
        """`skip`, `reduce`, or which of the two it skips."""
        if self.skips_ep == self.skips_tp:
            return "skip" if self.skips_tp else "reduce"
        return "skip EP" if self.skips_ep else "skip TP"

    def with_skip(self, path: Path) -> "Answer":
        """The same answer with `path` left out."""
        return self._replace(skips_ep=True) if path == "EP" else self._replace(skips_tp=True)


# one answer for both halves first: where it is as good as another, it is the simpler one
ANSWERS = tuple(
    Answer(skips_ep=skips_ep, skips_tp=skips_tp)
    for same in (True, False)
    for skips_ep in (False, True)
    for skips_tp in (False, True)
    if (skips_ep == skips_tp) is same
)


def always(guards: Guards, answer: Answer) -> Guards:
    """The same block, giving one answer in every row."""
    full = truth.full(len(flag_names()))
    return replace(
        guards,
        skip_ep=full if answer.skips_ep and guards.producer == "two-site" else 0,
        skip_tp=full if answer.skips_tp else 0,
    )


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Guards under the name of whoever has them."""

    name: str
    guards: Guards


def skip_table(flags: Iterable[str]) -> int:
    """The rows in which any of `flags` is true."""
    tables, table = flag_tables(), 0
    for flag in flags:
        table |= tables[flag]
    return table


def helper_guards(producer: Producer, *, handed: Collection[str] | None = None) -> Guards:
    """The helper in a block that hands it these layer flags (all of them when None)."""
    accepts = argument_flags() if handed is None else frozenset(handed)
    return Guards(
        producer=producer,
        skip_ep=helper_skips(path="EP", handed=accepts) if producer == "two-site" else 0,
        skip_tp=helper_skips(path="TP", handed=accepts),
        accepts=accepts,
    )


def helper_subjects() -> tuple[Subject, ...]:
    """The helper as every migrated block calls it, and with all flags in either kind of block."""
    general = (
        Subject(name="helper (one site)", guards=helper_guards("one-site")),
        Subject(name="helper (EP and TP sites)", guards=helper_guards("two-site")),
    )
    called = tuple(
        Subject(
            name=f"helper in {block(sites[0])}",
            guards=helper_guards(_producer(sites), handed=set(sites[0].passes.values())),
        )
        for sites in blocks(SITES)
    )
    return general + called


def oracle_subjects(sites: Sequence[Site] = SITES) -> tuple[Subject, ...]:
    """Every block with its original guards."""
    return tuple(
        Subject(name=block(members[0]), guards=oracle_guards(members)) for members in blocks(sites)
    )


def oracle_guards(sites: Sequence[Site]) -> Guards:
    """The original guards of one block's sites, which are one method's."""
    count = len(flag_names())
    reduces = {site.path: truth.evaluate(site.guard, flag_tables(), count) for site in sites}
    skip = {path: truth.full(count) ^ table for path, table in reduces.items()}
    return Guards(
        producer=_producer(sites),
        skip_ep=skip.get("EP", 0),
        skip_tp=skip["TP"],
        accepts=frozenset(sites[0].accepts),
    )


def dense_subject() -> Subject:
    """`models/deepseek_v2.py` (0.5.11), `DeepseekV2MLP`: skips on AF or RS, hears nothing else."""
    heard = argument_flags()
    return Subject(
        name="dense MLP",
        guards=Guards(producer="dense", skip_tp=skip_table(heard), accepts=heard),
    )


def block(site: Site) -> str:
    """The method that a site belongs to, `model/Class.method`."""
    return site.id.rpartition("/")[0]


def blocks(sites: Sequence[Site]) -> list[tuple[Site, ...]]:
    """The sites of each method together."""
    return [tuple(members) for _, members in groupby(sorted(sites, key=block), key=block)]


def _producer(sites: Sequence[Site]) -> Producer:
    return "two-site" if len(sites) == 2 else "one-site"
