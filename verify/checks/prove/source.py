"""The guards of a release and what its layers do around them, read from its source.

What is read: every block's guards (`verify.checks.scan`), how its decoder layer is wired (does the
communicator reduce-scatter, is a fused tensor tagged, is the last layer known, does a pipeline
stage complete its sum), and the steps that differ between releases (`layer.Release`). What is not
read, and stays as in 0.5.11: which deployments are legal where the arguments exist, and the other
steps.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from verify.checks.prove.subject import Subject
from verify.checks.scan.sites import GuardedSite, read_sites
from verify.checks.scan.whole import broken
from verify.engines.ledger import FlagDefinitions, Release, Wired
from verify.engines.registry import library
from verify.engines.sources import ledger, reading
from verify.errors import VerifyError
from verify.interpreter.index import Index
from verify.logic import truth
from verify.logic.flags import argument_flags, flag_names
from verify.parallel.guards import Guards, Producer
from verify.source.source import SourceTree

ENGINE = reading()
WIRING = ENGINE.wiring
LAYER_CLASS = re.compile(r"Layer$")


@dataclass(frozen=True, kw_only=True)
class Sourced:
    """A release as the ledger takes it.

    `left_out` says what it does not judge, `unread` what nobody could read.
    """

    release: Release
    subjects: tuple[Subject, ...]
    left_out: tuple[str, ...]
    unread: tuple[str, ...]


def read(tree: SourceTree) -> Sourced:
    """All subjects of a source. Raises `VerifyError` for one whose steps nobody knows."""
    why_not = WIRING.why_not(tree)
    if why_not:
        raise VerifyError(f"{tree.name} {tree.version} {why_not}")
    index = Index(tree, library(tree.name))
    sites = [site for site in read_sites(index) if site.collective in WIRING.producers]
    sites.sort(key=lambda site: (site.file, str(site.cls), site.method, site.line))
    subjects: list[Subject] = []
    definitions = _definitions(index)
    by_size = ENGINE.roles.scatters_by_size
    unknown = definitions.unknown(by_size)
    left_out = [f"the source's own {by_size} flag, it depends on {unknown}"] if unknown else []
    for _, members in groupby(sites, key=lambda site: (site.file, site.cls, site.method)):
        block = _one_a_path(members)
        why = _unjudged(block, WIRING.wired(tree, tree.read(block[0].file)))
        name = block[0].id.rpartition("/")[0]
        if why:
            left_out.append(f"{name}: {why}")
        else:
            subjects.append(Subject(name=name, guards=_guards(block, tree)))
    release = WIRING.release(index, definitions)
    index.unread |= broken(index)
    unread = (*tree.skipped, *sorted(index.unread.values()))
    return Sourced(
        release=release, subjects=tuple(subjects), left_out=(*left_out, *unread), unread=unread
    )


def read_release(tree: SourceTree) -> Release:
    """The steps of `layer.Release` as this source has them."""
    index = Index(tree, library(tree.name))
    return WIRING.release(index, _definitions(index))


def _definitions(index: Index) -> FlagDefinitions:
    """The flags' definitions, if the communicator reads the DP flag at all."""
    asked = WIRING.asks_sizes(index.tree)
    return ledger().definitions(ENGINE.constraints.texts(index) if asked else {})


def _guards(block: Sequence[GuardedSite], tree: SourceTree) -> Guards:
    full = truth.full(len(flag_names()))
    skip = {site.path: full ^ site.reduces for site in block}
    heard = {flag for site in block for flag in site.accepts}
    names = flag_names()
    heard |= {
        flag
        for table in skip.values()
        for flag in argument_flags()
        if truth.depends_on(table, names.index(flag), len(names))
    }
    wired = WIRING.wired(tree, tree.read(block[0].file))
    if not wired.hears_scatter:
        flag = ENGINE.roles.scatters
        scatter = names.index(flag)
        skip = {path: truth.where_false(table, scatter, len(names)) for path, table in skip.items()}
        heard.discard(flag)
    return Guards(
        producer=_producer(block),
        skip_ep=skip.get("EP", 0),
        skip_tp=skip.get("TP", 0),
        accepts=frozenset(heard),
        allows_reduce_scatter=wired.allows_scatter,
        tags_fusion=wired.tags_fusion,
        knows_last_layer=wired.knows_last_layer,
        shared_experts=wired.shared_experts,
        completes_stage=wired.completes_stage,
    )


def _one_a_path(sites: Iterable[GuardedSite]) -> tuple[GuardedSite, ...]:
    """Reductions of one path with equal guards are one reduction, written in two branches."""
    return tuple({(site.path, site.reduces): site for site in sites}.values())


def _unjudged(block: Sequence[GuardedSite], wired: Wired) -> str:
    """Why these reductions are not a block of a layer that the ledger knows; empty if they are."""
    first = block[0]
    paths = {site.path for site in block}
    in_layer = first.cls is not None and LAYER_CLASS.search(first.cls) is not None
    reasons = {
        f"its file has no layer with a {WIRING.communicator}": not wired.communicates,
        "not a method": first.cls is None,
        "several reductions of one path, by different guards": len(block) > len(paths),
        "one of two reductions only": _producer(block) == "two-site" and len(block) == 1,
        "a layer's own, and no flag decides": in_layer and not any(s.skips_on for s in block),
        "completes a pipeline stage": any("is_last_rank" in site.guard for site in block),
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


def _producer(block: Sequence[GuardedSite]) -> Producer:
    return WIRING.producers[block[0].collective]
