"""The process that has imported an engine and forks a process a rank: runs in the engine's Python.

Standard library only, and caged before the engine is imported. JSON lines: requests on standard
input, one answer each on the descriptor that was standard output; whatever the engine prints goes
to the case's log.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Protocol

from verify.checks.serve import cage

TAIL_BYTES = 4000
PR_SET_PDEATHSIG = 1
PATIENCE_S = 3.0  # for the peers of a rank that failed: their own words are often the better ones


class Drive(Protocol):
    """What an engine's own module offers."""

    def load(self) -> dict[str, Any]:
        """Import the engine; what it says of itself (`version`)."""

    def prepare(self, case: dict[str, Any], folder: Path) -> Any:
        """Before ranks are forked; what it raises is the launch's refusal or gap."""

    def rank(self, prepared: Any, case: dict[str, Any], folder: Path, rank: int) -> dict[str, Any]:
        """One rank's run; the result must be JSON.

        `rows` (step, prompt, log-probabilities), `unfilled` (parameters without a value),
        `variants` (a `change` and its rows), `again` (whether the same run says the same), `sites`
        (collectives: `words`, `hows`, `elsewhere`), `slices` (parameters held in part), `groups`
        (lists of ranks that add values up). It adds to `folder/clean{rank}` a line of JSON for the
        `rows`, before the first change, and for each variant, so that they outlast the process. It
        keeps in `folder/witness` what a case with `accuse` compares, for `accused`.
        """


def main(name: str) -> None:
    """Serve requests until standard input ends."""
    # a drive imports nothing of an engine before `load`; it may name programs that the engine asks
    drive: Drive = importlib.import_module(name)
    network = "the machine's: nothing is caged"
    if getattr(drive, "CAGED", True):
        network = cage.enter(scratch=Path.cwd(), programs=getattr(drive, "PROGRAMS", ()))
    # after it: new credentials undo this
    _die_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        hello = {**drive.load(), "network": network}
    except BaseException:
        hello = {"error": traceback.format_exc()}
    # what was imported stays: no rank has to look through it for garbage, which copies its pages
    gc.freeze()
    _say(answers, hello)
    for line in sys.stdin:
        request = json.loads(line)
        _say(answers, _run(drive, request))


def _say(stream: Any, answer: dict[str, Any]) -> None:
    stream.write(json.dumps(answer) + "\n")
    stream.flush()


def _run(drive: Drive, request: dict[str, Any]) -> dict[str, Any]:
    """One case in a process group of its own, which ends with it."""
    folder = Path(request["folder"])
    started = time.monotonic()
    leader = os.fork()
    if leader == 0:
        os.setpgid(0, 0)
        _die_with_parent()
        _redirect(folder / "log")
        _lead(drive, request, folder)
    _group(leader)
    deadline = started + request["limit"] + 2 * PATIENCE_S
    while not _ended(leader) and time.monotonic() < deadline:
        time.sleep(0.02)
    _kill_group(leader)
    files = {path.name: path for path in folder.glob("*.json")}
    results = {name: json.loads(path.read_text("utf-8")) for name, path in files.items()}
    return {
        "prepare": results.get("prepare.json"),
        "ranks": [results.get(f"rank{rank}.json") for rank in range(request["ranks"])],
        "ended": results.get("ended.json"),
        "said": [_tail(folder / f"log{rank}") for rank in range(request["ranks"])],
        "seconds": time.monotonic() - started,
    }


def _lead(drive: Drive, request: dict[str, Any], folder: Path) -> None:
    """In the case's own process: prepare, fork the ranks, wait for them within the limit."""
    case = request["case"]
    try:
        prepared = drive.prepare(case, folder)
    except BaseException as error:
        _write(folder / "prepare.json", _failure(error))
        os._exit(1)
    ranks: dict[int, int] = {}
    for rank in range(request["ranks"]):
        process = os.fork()
        if process == 0:
            _die_with_parent()
            _redirect(folder / f"log{rank}")
            _one_rank(drive, prepared, case, folder, rank)
        ranks[process] = rank
    ended = _wait(ranks, limit=request["limit"])
    _write(folder / "ended.json", {"ranks": ended})
    os._exit(0)


def _one_rank(drive: Drive, prepared: Any, case: dict[str, Any], folder: Path, rank: int) -> None:
    try:
        result = drive.rank(prepared, case, folder, rank)
        code = 0
    except BaseException as error:
        result, code = _failure(error), 1
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    _write(folder / f"rank{rank}.json", result)
    sys.stdout.flush()
    # an orderly end would wait in the engine's own threads and in collectives
    os._exit(code)


def _wait(ranks: dict[int, int], *, limit: float) -> list[str]:
    """How each rank ended: "", "code 1", "signal 11", "time limit", "ended by us".

    Once a rank has failed its peers get `PATIENCE_S` more.
    """
    ended = ["" for _ in ranks]
    deadline = time.monotonic() + limit
    failed = False
    while ranks and time.monotonic() < deadline:
        process, status = os.waitpid(-1, os.WNOHANG)
        if process in ranks:
            code = os.waitstatus_to_exitcode(status)
            ended[ranks.pop(process)] = _word(code)
            if code and not failed:
                failed = True
                deadline = min(deadline, time.monotonic() + PATIENCE_S)
        else:
            time.sleep(0.02)
    for process, rank in ranks.items():
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        ended[rank] = "ended with its peer" if failed else "time limit"
    return ended


def _tail(log: Path) -> str:
    """The end of what a rank printed: a native abort says why only there."""
    try:
        return log.read_bytes()[-TAIL_BYTES:].decode("utf-8", "replace")
    except OSError:
        return ""


def _word(code: int) -> str:
    return "" if code == 0 else f"signal {-code}" if code < 0 else f"code {code}"


def _failure(error: BaseException) -> dict[str, Any]:
    frames = [
        f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)
    ]
    return {
        "error": f"{type(error).__name__}: {error}",
        "kind": type(error).__name__,
        "frames": frames,
        "trace": "".join(traceback.format_exception(error)),
    }


def _write(path: Path, value: dict[str, Any]) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(value), encoding="utf-8")
    draft.replace(path)


def _redirect(log: Path) -> None:
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)


def _ended(process: int) -> bool:
    return os.waitpid(process, os.WNOHANG)[0] == process


def _group(leader: int) -> None:
    """Both sides set the group, so that it exists whoever comes first."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.setpgid(leader, leader)


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
    with contextlib.suppress(ChildProcessError):
        os.waitpid(leader, 0)


def _die_with_parent() -> None:
    """Linux ends this process when the one that started it is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
