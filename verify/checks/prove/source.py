"""The guards of a release and what its layers do around them, read from its source.

What is read: every block's guards, and what each layer around it does (`around.py`), both as
`verify.checks.scan` reads them, and the steps that differ between releases (`ledger.Release`).
What is not read, and stays as in 0.5.11: which deployments are legal where the arguments exist, and
the other steps.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath

from helper import Path
from verify.checks.prove.around import (
    ALL,
    ATTENTION_DP,
    COMBINES,
    NONE,
    REDUCES,
    Around,
    Line,
    layers_around,
)
from verify.checks.prove.subject import Subject
from verify.checks.scan.approximated import Approximated, in_order
from verify.checks.scan.layers import read_facts
from verify.checks.scan.sites import GuardedSite, read_sites
from verify.checks.scan.whole import broken
from verify.engines.ledger import FlagDefinitions, Release
from verify.engines.registry import library
from verify.engines.sources import ledger, reading
from verify.errors import VerifyError
from verify.interpreter.index import Index
from verify.logic import truth
from verify.logic.flags import argument_flags, flag_names
from verify.parallel.guards import Guards, Producer
from verify.source.source import SourceTree

ENGINE = reading()
WIRING, COLLECTIVES = ENGINE.wiring, ENGINE.library.collectives
LAYER_CLASS = re.compile(r"Layer$")


@dataclass(frozen=True, kw_only=True)
class Sourced:
    """A release as the ledger takes it.

    `left_out` says what it does not judge, `unread` what nobody could read, `approximated` which
    steps of its layers' runs are not exact.
    """

    release: Release
    subjects: tuple[Subject, ...]
    left_out: tuple[str, ...]
    unread: tuple[str, ...]
    approximated: Approximated


def read(tree: SourceTree) -> Sourced:
    """All subjects of a source. Raises `VerifyError` for one whose steps nobody knows."""
    index = Index(tree, library(tree.name))
    why_not = WIRING.why_not(index)
    if why_not:
        raise VerifyError(f"{tree.name} {tree.version} {why_not}")
    definitions = _definitions(index)
    release = WIRING.release(index, definitions)
    # blocks call helpers of their boundary's, too, and are not judged by them where it takes all
    known = WIRING.producers.keys() & (WIRING.producers if release.publishes else COLLECTIVES)
    sites = [site for site in read_sites(index) if site.collective in known]
    sites.sort(key=lambda site: (site.file, str(site.cls), site.method, site.line))
    by_size = ENGINE.roles.scatters_by_size
    unknown = definitions.unknown(by_size)
    left_out = [f"the source's own {by_size} flag, it depends on {unknown}"] if unknown else []
    at_boundary = release.boundary is not None and not release.publishes
    around = layers_around(read_facts(index), () if at_boundary else sites)
    subjects = [_at_boundary(layer) for layer in around if at_boundary and layer.boundary == ALL]
    left_out += [
        f"{_of_layer(layer)}: {layer.boundary}"
        for layer in around
        if at_boundary and layer.boundary not in (ALL, NONE)
    ]
    for _, members in groupby(sites, key=lambda site: (site.file, site.cls, site.method)):
        block = tuple(members)
        lines = {(site.file, site.line) for site in block}
        layers = [one for one in around if lines & one.told.keys() and _takes_over(one, release)]
        block = _one_a_path(block)
        why = _unjudged(block, layers, release)
        if why:
            left_out.append(f"{_name(block)}: {why}")
        else:
            subjects += _in_layers(block, layers, lines, release)
    index.unread |= broken(index)
    unread = (*tree.skipped, *sorted(index.unread.values()))
    return Sourced(
        release=release,
        subjects=tuple(subjects),
        left_out=(*left_out, *unread),
        unread=unread,
        approximated=in_order((layer.name, layer.approximated) for layer in around),
    )


def read_release(tree: SourceTree) -> Release:
    """The steps of `layer.Release` as this source has them."""
    index = Index(tree, library(tree.name))
    return WIRING.release(index, _definitions(index))


def _definitions(index: Index) -> FlagDefinitions:
    """The flags' definitions, if the communicator reads the DP flag at all."""
    asked = WIRING.asks_sizes(index.tree)
    return ledger().definitions(ENGINE.constraints.texts(index) if asked else {})


def _takes_over(layer: Around, release: Release) -> bool:
    """Whether what the block leaves goes to something that asks where it goes."""
    return layer.boundary == REDUCES if release.publishes else layer.communicates


def _in_layers(
    block: Sequence[GuardedSite],
    layers: Iterable[Around],
    lines: Collection[Line],
    release: Release,
) -> Iterator[Subject]:
    """The block in each kind of layer that it is in."""
    kinds: dict[Guards, list[str]] = {}
    for layer in layers:
        guards = _guards(block, layer, lines, release)
        kinds.setdefault(guards, []).append(layer.name)
    for guards, names in kinds.items():
        name = _name(block) if len(kinds) == 1 else f"{_name(block)} in {' and '.join(names)}"
        yield Subject(name=name, guards=guards, layers=tuple(names))


def _at_boundary(layer: Around) -> Subject:
    """A layer whose block leaves everything to its stage's boundary."""
    full = truth.full(len(flag_names()))
    return Subject(
        name=_of_layer(layer),
        guards=Guards(
            producer="one-site",
            skip_tp=full,
            shared_experts=layer.shared_experts,
            attention_dp=ATTENTION_DP not in layer.never,
            fp4_allgather=COMBINES not in layer.never,
        ),
        layers=(layer.name,),
    )


def _of_layer(layer: Around) -> str:
    return f"{PurePosixPath(layer.file).stem}/{layer.name}"


def _name(block: Sequence[GuardedSite]) -> str:
    return block[0].id.rpartition("/")[0]


def _guards(
    block: Sequence[GuardedSite], layer: Around, lines: Collection[Line], release: Release
) -> Guards:
    names = flag_names()
    full = truth.full(len(names))
    told = frozenset[str]().union(*(layer.told.get(line, ()) for line in lines))
    refused = [layer.refused[line] for line in lines if line in layer.refused]
    never = frozenset[str]().union(*refused).intersection(*refused)
    skip: dict[Path, int] = {site.path: full ^ site.reduces for site in block}
    if release.publishes and _producer(block) == "two-site":
        # one call for both groups
        skip = {path: full ^ rows for line in lines for path, rows in layer.reduces[line].items()}
    again: dict[Path, int] = {"EP": 0, "TP": 0}
    for line in lines:
        for path, rows in layer.twice.get(line, {}).items():
            again[path] |= rows
    heard = {flag for site in block for flag in site.accepts}
    for flag in argument_flags():
        at = names.index(flag)
        if any(truth.depends_on(table, at, len(names)) for table in skip.values()):
            heard.add(flag)
            if flag not in told and not release.publishes:
                # the layer never says so: what forward() takes stays at its default, false
                skip = {p: truth.where_false(table, at, len(names)) for p, table in skip.items()}
                heard.discard(flag)
    if release.publishes:
        # whatever the block asks, its boundary goes by them
        heard.update(argument_flags())
    return Guards(
        producer=_producer(block),
        skip_ep=skip.get("EP", 0),
        skip_tp=skip.get("TP", 0),
        again_ep=again["EP"] if _producer(block) == "two-site" else 0,
        again_tp=again["TP"] if _producer(block) == "two-site" else again["EP"] | again["TP"],
        accepts=frozenset(heard),
        allows_reduce_scatter=None if release.publishes else layer.allows_scatter,
        tags_fusion=layer.tags_fusion,
        knows_last_layer=layer.knows_last_layer,
        shared_experts=layer.shared_experts,
        completes_stage=layer.completes_stage,
        weighs_fused=layer.weighs_fused,
        fuses_on_rocm=layer.fuses_on_rocm,
        reached_by=tuple(dict.fromkeys(name for at in lines for name in layer.reached.get(at, ()))),
        attention_dp=ATTENTION_DP not in never,
        fp4_allgather=COMBINES not in never,
    )


def _one_a_path(sites: Iterable[GuardedSite]) -> tuple[GuardedSite, ...]:
    """Reductions of one path with equal guards are one reduction, written in two branches."""
    return tuple({(site.path, site.reduces): site for site in sites}.values())


def _unjudged(block: Sequence[GuardedSite], layers: Sequence[Around], release: Release) -> str:
    """Why these reductions are not a block of a layer that the ledger knows; empty if they are."""
    first = block[0]
    paths = {site.path for site in block}
    in_layer = first.cls is not None and LAYER_CLASS.search(first.cls) is not None
    reasons = {
        f"no layer around it has a {WIRING.communicator}": not layers,
        "not a method": first.cls is None,
        "several reductions of one path, by different guards": len(block) > len(paths),
        "one of two reductions only": _producer(block) == "two-site"
        and len(block) == 1
        and not release.publishes,
        "a layer's own, and no flag decides": in_layer and not any(s.skips_on for s in block),
        "completes a pipeline stage": any("is_last_rank" in site.guard for site in block),
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


def _producer(block: Sequence[GuardedSite]) -> Producer:
    return WIRING.producers[block[0].collective]
