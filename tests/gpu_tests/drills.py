"""Work for rank processes that goes wrong on purpose. Imported by name in those processes."""

import os
import signal
import time
from typing import Any

import torch


def drill(ranks: Any, item: tuple[str, int]) -> float:
    """Item is (what goes wrong, on which rank); every rank then sums over all ranks."""
    what, victim = item
    if ranks.rank == victim:
        ranks.say("experts")
        _go_wrong(what)
    rows = 3 if what == "shape" and ranks.rank == victim else 2
    total = ranks.all_reduce(torch.ones(rows, 4, device=ranks.device), tuple(range(ranks.size)))
    ranks.say("judging")
    return float(total[0, 0])


def _go_wrong(what: str) -> None:
    match what:
        case "raise":
            raise ValueError("seven experts of eight")
        case "out of memory":
            raise MemoryError("cannot allocate 3 GiB")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(3600)
        case "leave":
            os._exit(3)
