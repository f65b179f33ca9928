"""The process that executes third-party code: reads requests, writes one JSON line a case.

Started by `verify.checks.replay.processes` only. The first line out says what cages it.
"""

import ctypes
import gc
import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from helper import MoeConfig
from verify.checks.replay.decoders import AttentionName, Decoder
from verify.checks.replay.deployments import Execution
from verify.emulator import cage
from verify.report.ending import end_with_parent

GARBAGE = 400_000  # objects between two collections


def main() -> None:
    """Serve requests until standard input ends."""
    scratch = Path.cwd()
    network = cage.leave_network()
    end_with_parent()
    # what the source prints must not end up among the answers
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    cage.limit()
    serve(answers, network=network, scratch=scratch)


def serve(answers: TextIO, *, network: str, scratch: Path) -> None:
    """Open the source, announce what it has, then run what is asked for."""
    # torch takes a second to import and must not be imported before the network is gone
    from verify.checks.replay.case import Source, run_case  # noqa: PLC0415
    from verify.emulator.machine import imitate  # noqa: PLC0415
    from verify.emulator.tree import SourceFiles  # noqa: PLC0415
    from verify.engines.sources import open_source  # noqa: PLC0415

    imitate()
    files = SourceFiles(open_source(sys.argv[1], below=""))
    source = Source(files=files)
    libc = ctypes.CDLL(None)
    cage.refuse(scratch=scratch)
    # torch's objects stay for good: without this every collection looks at all of them
    gc.freeze()
    # a model is thousands of objects of one case: looking rarely saves a fifth of the time
    gc.set_threshold(GARBAGE, 20, 100)
    _say(answers, {"network": network})
    for line in sys.stdin:
        request = json.loads(line)
        decoder = decoder_from(request["decoder"])
        result = run_case(source, decoder, deployment_from(request["deployment"]))
        _say(answers, {**result, "network": network})
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)


def decoder_from(values: dict[str, Any]) -> Decoder:
    """The decoder that `dataclasses.asdict` was made from."""
    attention = tuple(AttentionName(**each) for each in values["attention"])
    return Decoder(**{**values, "stacks": tuple(values["stacks"]), "attention": attention})


def deployment_from(values: dict[str, Any]) -> Execution:
    """The deployment that `dataclasses.asdict` was made from."""
    return Execution(**{**values, "config": MoeConfig(**values["config"])})


def _say(answers: TextIO, value: dict[str, Any]) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
    # ranks that hang are threads that never end
    os._exit(0)
