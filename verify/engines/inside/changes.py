"""One thing changed while a loaded model runs once more: all its weights, or a slice of one.

Runs inside an engine's Python (standard library and torch).
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from verify.engines.inside.modules import pattern
from verify.engines.inside.witness import Witness

Change = dict[str, Any]
"""`{"seed", "size"}` moves every weight, `{"site", "how"}` spoils a collective, `{"slice", "rank"}`
sets a parameter of one rank to zero, with `how` "unset" to what is not a number."""

Ranks = tuple[int, ...]
"""The ranks of one group, in order."""

DOUBLED, DROPPED, NAN = "doubled", "dropped", "unset"


@contextlib.contextmanager
def moved(model: Any, *, size: float, seed: int) -> Iterator[None]:
    """Every weight larger or smaller by `size` of itself, at random, and then as it was."""
    draw = torch.Generator().manual_seed(seed)
    parameters = [each for each in model.parameters() if each.is_floating_point()]
    before = [each.detach().clone() for each in parameters]
    with torch.no_grad():
        for parameter in parameters:
            up = torch.randint(0, 2, parameter.shape, generator=draw)
            # in float32: a narrower type has no number that near to one
            factors = (1 + size * (2 * up.float() - 1)).to(parameter.device)
            parameter.data.copy_(parameter * factors)
        yield
        for parameter, value in zip(parameters, before, strict=True):
            parameter.data.copy_(value)


@contextlib.contextmanager
def spoiled(model: Any, change: Change, *, rank: int) -> Iterator[None]:
    """The change's slice spoiled on its rank, and then as it was."""
    tensor = dict(model.named_parameters())[change["slice"]]
    before = tensor.detach().clone()
    if rank == change["rank"]:
        tensor.data.fill_(float("nan") if change.get("how") == NAN else 0.0)
    yield
    tensor.data.copy_(before)


def keep(folder: Path, rank: int, said: dict[str, Any]) -> None:
    """Add a line to `folder/clean{rank}`: what a run said stays when a later one ends the process.

    The first line has the `rows` of the model as it is, each other one a variant.
    """
    with (folder / f"clean{rank}").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(said) + "\n")


def variants(
    changes: Sequence[Change],
    *,
    made: Callable[[Change], contextlib.AbstractContextManager[None]],
    run: Callable[[], list[dict[str, Any]]],
    witness: Witness,
    folder: Path,
    rank: int,
    watch: bool,
) -> list[dict[str, Any]]:
    """A variant (`change`, `rows` of a `run`) for each change, while it is `made`.

    What modules make of rows is kept in `folder/witness` for changes that no layout makes, which
    say how near a module's values must be, and where the case has `watch` for every one.
    """
    said = []
    for number, change in enumerate(changes):
        witness.active = "seed" in change or watch
        with made(change):
            said.append({"change": change, "rows": run()})
        keep(folder, rank, said[-1])
        if witness.active:
            witness.take(folder / "witness" / f"change{number}.rank{rank}.pt")
    witness.active = False
    return said


def other_groups(
    own: Sequence[Ranks], groups: Mapping[str, Sequence[Ranks]], *, size: int | None
) -> list[str]:
    """The names of `groups` of other ranks than `own`; both have each rank's ranks.

    Groups of the same ranks are one, groups of one rank are none. `size` is the only one that fits,
    where values are gathered or scattered and another would be another shape; None: any does.
    """
    found: dict[tuple[Ranks, ...], str] = {}
    for name in sorted(groups):
        partition = tuple(groups[name])
        fits = size is None or len(partition[0]) == size
        if partition != tuple(own) and len(partition[0]) > 1 and fits:
            found.setdefault(partition, name)
    return list(found.values())


def parts_held(model: Any, shapes: Path) -> list[str]:
    """Parameters that this rank holds a part of; of those that differ in their layer, the first.

    A part that is zero already, as heads with which a server pads, is none: setting it to zero
    would make nothing wrong.
    """
    # a checkpoint was read instead of weights made from names
    whole = json.loads(shapes.read_text("utf-8")) if shapes.exists() else {}
    found: dict[str, str] = {}
    for name, tensor in model.named_parameters():
        part = name in whole and list(tensor.shape) != whole[name]["shape"]
        if part and torch.is_floating_point(tensor) and tensor.any():
            found.setdefault(pattern(name), name)
    return list(found.values())


def one_slice(mine: list[str], *, seed: int) -> list[Change]:
    """One parameter of the last rank, another one for another seed."""
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    last = len(everyone) - 1
    held = everyone[last]
    return [{"slice": held[seed % len(held)], "rank": last}] if held else []


def place(root: Path, plumbing: tuple[str, ...]) -> str:
    """The caller's innermost frame below `root` that is not `plumbing`: `folder/file.py:1543`."""
    frame: Any = sys._getframe(1)
    found = "outside the engine"
    while frame is not None:
        head, _, inside = frame.f_code.co_filename.partition(f"{root}/")
        if not head and inside:
            found = f"{inside}:{frame.f_lineno}"
            if not inside.startswith(plumbing):
                return found
        frame = frame.f_back
    return found
