"""Serves the toy engine: how a case ends is said by its model's name."""

import base64
import struct
import time
from pathlib import Path

from verify.engines.inside.changes import keep


class RefusedError(Exception):
    pass


def load():
    return {"version": "1", "stand_ins": {"none": "is needed"}, "torch": "0"}


def prepare(case, folder):
    if "accuse" in case:
        return
    if "write" in case:
        Path(case["into"]).mkdir()
        return
    model = Path(case["model"]).name
    if model.startswith("refused") and case["ranks"] > 1:
        raise RefusedError("no such launch")
    if model.startswith("nosy"):
        Path("/tmp/nosy").write_text("outside")
    if model.startswith("missing") and case["ranks"] > 1:
        raise NotImplementedError("a kernel")


SITE = ["srt/models/toy.py:7", "model.layers.*", "all_reduce", 2]


def rank(prepared, case, folder, rank):
    if "spoiled" in case:
        files = [Path(case["accuse"], f"change{i}.rank1") for i in case["spoiled"]]
        # a normed toy hides its collective behind a norm, where a module's value shows it
        shown = [{"module": "norm"} if "normed" in file.read_text() else None for file in files]
        return {"rows": [], "unfilled": [], "accused": {"noticed": shown}}
    if "accuse" in case:
        kept = [Path(case[name], "rank0").is_file() for name in ("accuse", "one")]
        accused = {"module": "model.layers.1", "step": "prefill", "rank": 0, "rows": [1, 1]}
        what = "2x of model.layers.1.mlp" if all(kept) else "its witnesses are gone"
        return {"rows": [], "unfilled": [], "accused": {**accused, "what": what, "far": 1.0}}
    model = Path(case["model"]).name
    if model.startswith("slow"):
        time.sleep(600)
    wrong = 1.0 if model.startswith("wrong") and case["ranks"] > 1 else 0.0
    if model.startswith("lost") and case["ranks"] > 1:
        wrong = float("nan")
    # what a launch and a patch do to this toy's one rank, and to each of several
    wrong += 0.25 * case["launch"].count("--other-model")
    wrong += float(Path(case["patch"]).read_text()) if case["patch"] else 0.0
    (folder / "witness").mkdir(exist_ok=True)
    (folder / "witness" / f"rank{rank}").touch()
    keep(folder, rank, {"rows": rows(wrong)})
    changes = case["changes"]
    if changes == "own":
        changes = [{"site": SITE, "how": "doubled"}, {"slice": "w", "rank": 1}]
    for number, _ in enumerate(changes if case["watch"] else ()):
        (folder / "witness" / f"change{number}.rank{rank}").write_text(model)
    for change in changes:
        if model.startswith("brittle") and "site" in change:
            raise RuntimeError("sizes differ")
        if model.startswith("late") and change.get("slice") == "v":
            raise RuntimeError("too late")
        keep(folder, rank, {"change": change, "rows": rows(wrong + moved(model, change))})
    return {
        "rows": rows(wrong),
        "unfilled": [],
        "variants": [
            {"change": change, "rows": rows(wrong + moved(model, change))} for change in changes
        ],
        "again": not model.startswith("moody"),
        "sites": [{"words": SITE, "hows": ["doubled"], "elsewhere": ["tp:0"], "count": 3}],
        "slices": ["w", "v", "u"] if model.startswith("late") else ["w", "v"],
        "groups": [[0, 1]],
    }


def moved(model, change):
    """How far a change moves the toy: blind ones do not see the collective at all."""
    if "seed" in change:
        return change["size"] * (1 + change["seed"])
    if change.get("how") == "unset" and not model.startswith("blind"):
        return float("nan") if not model.startswith("unused") else 0.0
    if "site" in change and model.startswith(("blind", "unused", "shy", "normed")):
        return 0.0
    return 1e-5 if model.startswith("weak") and "site" in change else 1.0


def rows(lower):
    packed = struct.pack("<2f", -0.5 - lower, -1.0)
    return [{"step": "prefill", "prompt": 0, "logprobs": base64.b64encode(packed).decode()}]
