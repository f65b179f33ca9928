"""The main function of one rank process."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from typing import Any

from gpu_tests.board import Board

FAILED = "failed"
"""What a rank sends instead of a result."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Who this rank is and where the others are met."""

    rank: int
    size: int
    backend: str
    port: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """Items to work through in order."""

    items: list[Any]


def main(
    settings: Settings, work: Callable[[Any, Any], Any], pipe: Connection, board: Board
) -> None:
    """Join the others, then work on what comes through the pipe until it is closed."""
    _leave_with_parent()
    try:
        board.say("importing torch")
        one_thread()
        board.say("joining the other ranks")
        ranks = join(settings, board)
        pipe.send((None,))
        while True:
            try:
                job = pipe.recv()
            except (EOFError, OSError):
                break
            for number, item in enumerate(job.items):
                board.begin(number)
                pipe.send((work(ranks, item),))
            board.say("waiting for work")
    except Exception as error:
        board.fail(describe(error))
        with suppress(OSError):
            pipe.send(FAILED)
        # a rank's peers hold connections to it: wait to be stopped rather than cut them
        wait([pipe])
    # the backend's threads may be in the middle of something: leave without asking them
    os._exit(0)


def one_thread() -> None:
    """Ranks share the machine's cores; each using all of them is slower for everyone."""
    import torch  # noqa: PLC0415 - a child says that it imports torch before it does

    torch.set_num_threads(1)


def own_device(backend: str, local_rank: int) -> Any:
    """The torch device of a rank on its host: NCCL takes one GPU a rank."""
    import torch  # noqa: PLC0415 - a child says that it imports torch before it does

    if backend != "nccl":
        return torch.device("cpu")
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def join(settings: Settings, board: Board) -> Any:
    """Initialise torch.distributed through the parent's store."""
    import torch.distributed as dist  # noqa: PLC0415 - as above

    from gpu_tests.ranks import Ranks  # noqa: PLC0415 - imports torch

    device = own_device(settings.backend, settings.rank)
    store = dist.TCPStore("127.0.0.1", settings.port, is_master=False)
    dist.init_process_group(
        settings.backend, store=store, rank=settings.rank, world_size=settings.size
    )
    return Ranks(
        rank=settings.rank, size=settings.size, device=device, say=board.say, call=board.call
    )


def describe(error: Exception) -> str:
    """One line for the person: type and first line of the message."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _leave_with_parent() -> None:
    """Exit when the parent has gone, even in the middle of a collective."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
