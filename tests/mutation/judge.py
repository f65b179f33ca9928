"""What the engine says of each mutant, on the launches that run its lines."""

import json
from collections.abc import Sequence
from pathlib import Path

from tests.mutation.draw import Mutant
from tests.mutation.engine import Answer, Judge, layout
from tests.mutation.operators import mutations
from tests.mutation.reach import Reached
from tests.mutation.strata import ROOT

# what a row-parallel layer and the embedding sum with
CONTROL = f"{ROOT}/distributed/communication_op.py"
CONTROL_FUNCTION = "tensor_model_parallel_all_reduce"
ENOUGH = 2  # launches that diverge, or that hang; the others would say it again


def verdict(judge: Judge, release: Path, mutant: Mutant, reached: Sequence[Reached]) -> dict:
    """`truth` and the `launches` that it rests on.

    wrong: at least one launch diverges, and one rank alone is as before. one-rank: that changes
    too, or ends. exact: every launch agrees; exact-or-ends: those that ended do. cannot-run: none
    ended. not-applied: what ran was not the mutant's code.
    """
    source = (release / mutant.file).read_text("utf-8")
    text = mutant.mutation.apply(source)
    job = {"file": mutant.file, "text": text}
    span = range(mutant.mutation.line, mutant.mutation.last + 1)
    launches: list[dict] = []
    wrong: list[str] = []
    hung = 0
    for row in reached:
        if row.lines.get(mutant.file, frozenset()).isdisjoint(span) or len(wrong) == ENOUGH:
            continue
        answer = judge.judge(row.model, layout(row.layout), job)
        launches.append(_launch(row.model, row.layout, answer))
        if answer.outcome == "diverged":
            wrong.append(row.model)
        hung += (answer.reason or "").startswith("waited ")
        if hung == ENOUGH or _ends_alike(launches):
            break
    alone = judge.judge(wrong[0], layout("tp1"), job) if wrong else None
    if alone is not None:
        launches.append(_launch(wrong[0], "tp1", alone))
    return {"truth": truth(launches), "launches": launches}


def _ends_alike(launches: Sequence[dict]) -> bool:
    """Whether every launch so far ended for one and the same reason, and they are enough."""
    reasons = {each["reason"] for each in launches}
    return len(launches) > ENOUGH and reasons != {None} and len(reasons) == 1


def control(judge: Judge, release: Path, model: str) -> dict:
    """A launch that has to diverge: of two ranks that add nothing up. A judge that sees nothing
    wrong in it sees nothing at all.
    """
    source = (release / CONTROL).read_text("utf-8")
    (chosen,) = (
        each
        for each in mutations(source)
        if each.name == CONTROL_FUNCTION and each.operator == "remove-sum"
    )
    job = {"file": CONTROL, "text": chosen.apply(source)}
    return _launch(model, "tp2", judge.judge(model, layout("tp2"), job))


def models_of(row: dict) -> list[str]:
    """The model that a mutant was seen to be wrong on, or all that it was judged on."""
    wrong = [each["model"] for each in row["launches"] if each["outcome"] == "diverged"]
    return wrong[:1] or sorted({each["model"] for each in row["launches"]})


def ranks_of(row: dict) -> int:
    """The fewest ranks on which it was seen to be wrong, or two."""
    wrong = [layout(each["layout"]).tp for each in row["launches"] if each["outcome"] == "diverged"]
    return min(wrong, default=2)


def truth(launches: Sequence[dict]) -> str:
    """The word for what launches ended with; that of one rank is among them where one diverged."""
    ended = [each["outcome"] for each in launches if each["layout"] != "tp1"]
    alone = [each["outcome"] for each in launches if each["layout"] == "tp1"]
    if not all(each["swapped"] for each in launches if each["outcome"] in ("exact", "diverged")):
        return "not-applied"
    if "diverged" in ended:
        return "wrong" if alone == ["exact"] else "one-rank"
    if "exact" in ended:
        return "exact" if all(word == "exact" for word in ended) else "exact-or-ends"
    return "cannot-run"


def _launch(model: str, word: str, answer: Answer) -> dict:
    swaps = [json.loads(t) for name, t in answer.files.items() if name.startswith("swap.")]
    return {
        "model": model,
        "layout": word,
        "outcome": answer.outcome,
        "nats": answer.nats,
        "reason": answer.reason,
        "swapped": min((swap["swapped"] for swap in swaps), default=0),
        "missed": sorted({name for swap in swaps for name in swap["missed"]}),
    }
