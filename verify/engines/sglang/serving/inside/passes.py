"""One rank's runs of the test over one loaded model: as it is, and with one thing changed each.

Runs inside the engine's Python (standard library, torch and sglang).
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch.distributed as dist

from verify.engines.inside.changes import (
    NAN,
    Change,
    keep,
    moved,
    one_slice,
    parts_held,
    spoiled,
    variants,
)
from verify.engines.inside.modules import Running
from verify.engines.inside.witness import Witness
from verify.engines.sglang.serving.inside import corrupt
from verify.engines.sglang.serving.inside.record import Record


def run(
    kept: Record,
    test: Callable[[], None],
    *,
    case: dict[str, Any],
    folder: Path,
    rank: int,
    kind: type[corrupt.Collectives] = corrupt.Collectives,
) -> dict[str, Any]:
    """`rows` of the model as it is, and a `variants` entry (`change`, `rows`) for each change.

    `changes` of the case is a list, or "own": each collective of this launch doubled and dropped,
    and one slice of one parameter; "once" adds each of those unset, behind them, for ranks that
    are not easily started again. `kind` stands before this platform's collectives. What modules
    make of rows is kept in `folder/witness`; of a
    corruption, where the case has `watch`.
    `sites` are the collectives (place, module, function, ranks; how often; in which ways each can
    be wrong, and over which groups of other ranks), `slices` the parameters that this rank holds a
    part of. `again` is false where the model, run once more in the end, says something else than
    at first, and `repeat` the rows that it says.
    """
    running = Running()
    root = Path(str(importlib.import_module("sglang").__file__)).parent
    collectives = kind(running=running, root=root)
    witness = Witness(running, step=lambda: kept.step)

    def loaded(model: Any) -> None:
        running.attach(model)
        collectives.active = witness.active = True

    kept.loaded = loaded
    collectives.install()
    rows = kept.run(test)
    witness.take(folder / "witness" / f"rank{rank}.pt")
    # whatever a change does to the process, the model as it is went through
    keep(folder, rank, {"rows": rows})
    seen = dict(collectives.seen)
    sites = _agreed(collectives) if case["ranks"] > 1 else []
    slices = parts_held(kept.runner.model, Path(case["model"], "shapes.json"))
    changes = case.get("changes", [])
    if changes in ("own", "once"):
        once = changes == "once"
        changes = [*_doubled_and_dropped(sites), *one_slice(slices, seed=case["seed"])]
        changes += _unset(changes) if once else []
    said = variants(
        changes,
        made=lambda change: _changed(change, kept=kept, collectives=collectives, rank=rank),
        run=lambda: kept.run(test),
        witness=witness,
        folder=folder,
        rank=rank,
        watch=case.get("watch", False),
    )
    repeat = kept.run(test) if changes else rows
    return {
        "rows": rows,
        "unfilled": kept.unfilled,
        "variants": said,
        "again": repeat == rows,
        "repeat": repeat,
        "sites": [{**site, "count": seen.get(corrupt.Site.of(site["words"]), 0)} for site in sites],
        "slices": slices,
        "groups": [list(part) for part in {tuple(ranks) for ranks in _groups().values()}],
    }


@contextlib.contextmanager
def _changed(
    change: Change, *, kept: Record, collectives: corrupt.Collectives, rank: int
) -> Iterator[None]:
    if "seed" in change:
        with moved(kept.runner.model, size=change["size"], seed=change["seed"]):
            yield
    elif "slice" in change:
        with spoiled(kept.runner.model, change, rank=rank):
            yield
    else:
        how, group = change["how"], None
        if how.startswith(corrupt.ELSEWHERE):
            group = _coordinators()[how.removeprefix(corrupt.ELSEWHERE)].device_group
        collectives.corrupt(corrupt.Site.of(change["site"]), how, group)
        yield
        collectives.corrupt(None)


def _doubled_and_dropped(sites: list[dict[str, Any]]) -> list[Change]:
    return [{"site": site["words"], "how": how} for site in sites for how in site["hows"]]


def _unset(changes: list[Change]) -> list[Change]:
    """No number in the place of each thing that is changed, once."""
    things = {repr(change.get("site") or change.get("slice")): change for change in changes}
    return [{**change, "how": NAN} for change in things.values()]


def _agreed(collectives: corrupt.Collectives) -> list[dict[str, Any]]:
    """The sites of all ranks in one order, and by what other groups each could be summed."""
    mine = {tuple(site.words()): ranks for site, ranks in collectives.ranks.items()}
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, (mine, _groups()))
    names = sorted(set.intersection(*(set(groups) for _, groups in everyone)))
    others = {name: [tuple(groups[name]) for _, groups in everyone] for name in names}
    found = []
    for words in sorted({words for sites, _ in everyone for words in sites}):
        own = [tuple(sites.get(words, ())) for sites, _ in everyone]
        hows = corrupt.hows(corrupt.Site.of(list(words)))
        found.append(
            {
                "words": list(words),
                "hows": list(hows),
                "elsewhere": corrupt.elsewhere(words, own, others),
            }
        )
    return found


def _coordinators() -> dict[str, Any]:
    state: Any = importlib.import_module("sglang.srt.distributed.parallel_state")
    living = {name: reference() for name, reference in state._groups.items()}
    return {name: each for name, each in living.items() if each is not None}


def _groups() -> dict[str, list[int]]:
    """The engine's groups by name: the ranks of the one that this rank is in."""
    return {name: list(each.ranks) for name, each in _coordinators().items()}
