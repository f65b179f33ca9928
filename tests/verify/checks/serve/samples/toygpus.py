"""The toy engine's GPUs: as many as TOY_GPUS says; rank 0 reads the launch, no process before."""

import os
from pathlib import Path

import toyserver

CAGED = False
prepare = toyserver.prepare


def load():
    gpus = int(os.environ["TOY_GPUS"])
    return {**toyserver.load(), "gpus": gpus, "device": f"{gpus} x toy"}


def rank(prepared, case, folder, rank):
    model = Path(case.get("model", "")).name
    several = case.get("ranks", 1) > 1
    if model.startswith("unread") and several:
        raise toyserver.RefusedError("no such launch")
    if model.startswith("loud") and several:
        print("words before the end", flush=True)
        raise RuntimeError("the end")
    if case.get("changes") == "once":
        changes = [{"site": toyserver.SITE, "how": "doubled"}, {"slice": "w", "rank": 1}]
        case = {**case, "changes": [*changes, *({**each, "how": "unset"} for each in changes)]}
    return toyserver.rank(prepared, case, folder, rank)
