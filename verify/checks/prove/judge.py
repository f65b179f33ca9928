"""One deployment, one subject: is every partial sum counted exactly once?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from verify.engines.ledger import LayerTraits, Release, Step
from verify.engines.sources import ledger
from verify.logic import truth
from verify.logic.flags import flag_names
from verify.parallel.counts import (
    FAMILIES,
    Family,
    Held,
    ImpossibleError,
    Run,
    State,
    Tokens,
    joined,
    lanes,
    mask,
)
from verify.parallel.deployment import Deployment
from verify.parallel.guards import Guards
from verify.parallel.scene import Scene

LEDGER = ledger()

Kind = Literal["exact", "double", "missing", "mixed", "crash"]
Counts: TypeAlias = "tuple[tuple[int, ...], ...]"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the next layer reads. `counts[r][s]`: how often rank r's tensor counts rank s's partial.

    The counts are those of `family` (the first that is wrong, else the routed experts), for the
    first tokens that are wrong; they are empty for a crash. `row` is bits in flag order, `steps`
    what the layer did, `why` a crash's own words. `counts_of` says of which token the counts are,
    where others have other counts.
    """

    kind: Kind
    row: str
    family: Family
    counts: Counts
    steps: tuple[str, ...]
    why: str = ""
    counts_of: str = ""


def judge(
    deployment: Deployment,
    guards: Guards,
    *,
    release: Release = LEDGER.release,
    steps: Mapping[str, Step] = LEDGER.steps,
) -> Verdict:
    """The verdict on a block with these guards; `steps` can be replaced to try a wrong one."""
    layer = LEDGER.plan(deployment, LayerTraits.of(guards), release)
    program = layer.steps(LEDGER.sites(deployment, guards, layer.row))
    scene = Scene(deployment=deployment, mode=layer.mode)
    return run(scene, program, row=truth.row_bits(layer.row, len(flag_names())), steps=steps)


def run(
    scene: Scene, program: tuple[str, ...], *, row: str, steps: Mapping[str, Step] = LEDGER.steps
) -> Verdict:
    """The verdict on a sequence of steps."""
    state = scene.mlp_input
    try:
        for name in program:
            state = steps[name](scene, state)
    except ImpossibleError as error:
        return Verdict(
            kind="crash", row=row, family="routed", counts=(), steps=program, why=str(error)
        )
    kind, family = classify(scene, state)
    return Verdict(
        kind=kind,
        row=row,
        family=family,
        counts=matrix(state, family),
        steps=program,
        counts_of=_counts_of(scene, state),
    )


def classify(scene: Scene, state: State) -> tuple[Kind, Family]:
    """What is wrong with what the ranks hold at the end, and with which family of partials."""
    own = scene.attention
    for has, needs in set(zip(state.of, own.of, strict=True)):
        held = state.tensors[has]
        if any(run.mixed for run in held) or _tokens(held) != _tokens(own.tensors[needs]):
            return "mixed", "routed"
    wrong = {run.counts for held in state.tensors for run in held} - {state.owed}
    for family in FAMILIES if wrong else ():
        bits = mask(family, scene.world_size)
        # what is owed is one in each lane: any other bit is a second count
        if any(counts & bits & ~state.owed for counts in wrong):
            return "double", family
        if any((counts ^ state.owed) & bits for counts in wrong):
            return "missing", family
    return "exact", "routed"


def matrix(state: State, family: Family) -> Counts:
    """Per rank, how often it counts each rank's partial; ranks with copies show the same."""
    world_size = len(state.of)
    different = max(1, sum(lanes(state.owed, family, world_size)))
    by_tensor = [
        lanes(_most_wrong(held, state.owed), family, world_size)[:different]
        for held in state.tensors
    ]
    copies = world_size // different
    return tuple(by_tensor[index] * copies for index in state.of)


def _most_wrong(held: Held, owed: int) -> int:
    """The counts of the run that is shown."""
    return _first_wrong(held, owed).counts if held else 0


def _first_wrong(held: Held, owed: int) -> Run:
    """The first run that is not as it should be, else the first."""
    return next((run for run in held if run.counts != owed), held[0])


def _counts_of(scene: Scene, state: State) -> str:
    """Whose token the matrix shows; nothing where every token of a rank has the same counts."""
    if all(len({run.counts for run in held}) <= 1 for held in state.tensors):
        return ""
    shown = {_first_wrong(held, state.owed).tokens[0] for held in state.tensors if held}
    if len(shown) > 1:
        return "the first wrong token of each rank"
    (first,) = shown
    began = scene.mlp_input if scene.mode == "scattered" else scene.attention
    rank = next(
        rank
        for rank, held in enumerate(began.ranks)
        if any(first.owner == t.owner and t.start <= first.start < t.stop for t in _tokens(held))
    )
    return f"a token of rank {rank}"


def _tokens(held: Held) -> tuple[Tokens, ...]:
    """The tokens of a tensor; runs that go on where the last one stopped read as one."""
    if len(held) == 1:
        return held[0].tokens
    tokens: tuple[Tokens, ...] = ()
    for run in held:
        tokens = joined(tokens, run.tokens)
    return tokens
