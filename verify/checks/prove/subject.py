"""Whose answer is judged: the helper's, the original guards', and a dense MLP's."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from oracles import SITES, Site
from verify.logic import truth
from verify.logic.flags import argument_flags, flag_names, flag_tables, helper_skips
from verify.parallel.guards import Guards, Producer


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Guards under the name of whoever has them; `layers` are the decoder layers around them."""

    name: str
    guards: Guards
    layers: tuple[str, ...] = ()


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
