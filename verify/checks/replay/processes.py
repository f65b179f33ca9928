"""Child processes that execute cases: each with limits, replaced when it dies or is too slow."""

import json
import os
import site
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import verify
from verify.checks.replay.decoders import Decoder
from verify.checks.replay.deployments import Execution
from verify.emulator.exchange import exchange
from verify.errors import VerifyError

START_SECONDS = 60.0
CASE_SECONDS = 90.0


@dataclass(frozen=True, kw_only=True)
class Case:
    """One decoder layer class on one deployment."""

    decoder: Decoder
    deployment: Execution


def run_cases(
    source: str,
    batches: Sequence[Sequence[Case]],
    *,
    variables: Mapping[str, str] | None = None,
    jobs: int,
) -> Iterator[tuple[Case, dict[str, Any]]]:
    """Each batch in one child, `jobs` children at a time; results as they come.

    `variables` are added to the children's environment. Raises `VerifyError` when no child starts.
    """

    def run(batch: Sequence[Case]) -> None:
        child = idle.pop() if idle else Child(source, variables=variables)
        busy.append(child)
        try:
            for case in batch:
                if stopped.is_set():
                    break
                done.put((case, child.run(case)))
        except Exception as error:
            done.put(error)
        finally:
            busy.remove(child)
            idle.append(child)

    done: SimpleQueue[tuple[Case, dict[str, Any]] | Exception] = SimpleQueue()
    idle: list[Child] = []
    busy: list[Child] = []
    stopped = threading.Event()
    pool = ThreadPoolExecutor(max_workers=jobs)
    try:
        for batch in batches:
            pool.submit(run, batch)
        for _ in range(sum(map(len, batches))):
            result = done.get()
            if isinstance(result, Exception):
                raise result
            yield result
    finally:
        # whoever stops reading, by an interrupt too, does not wait for what is under way
        stopped.set()
        for child in [*busy]:
            child.kill()
        pool.shutdown(wait=True, cancel_futures=True)
        for child in idle:
            child.close()


class Child:
    """One process; starts when first needed and again after it was lost."""

    def __init__(self, source: str, *, variables: Mapping[str, str] | None = None) -> None:
        self._source = source
        self._variables = dict(variables or {})
        self._process: subprocess.Popen[str] | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self.network = ""

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, case: Case) -> dict[str, Any]:
        """The case's result; a child that died or took too long is a result, too."""
        if self._process is None:
            self._start()
        request = {
            "decoder": asdict(case.decoder),
            "deployment": asdict(case.deployment),
        }
        answer = exchange(self._process, json.dumps(request), seconds=CASE_SECONDS)
        if answer is None:
            why = self._loss(CASE_SECONDS)
            self.close()
            return {"kind": "cannot run", "why": why, "counts": None, "max_error": None}
        return answer

    def kill(self) -> None:
        """End the process at once; `close` is still due."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the process and remove its scratch folder."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    def _start(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="verify-replay-")
        folder = self._scratch.name
        self._process = subprocess.Popen(
            [sys.executable, "-m", "verify.checks.replay.child", self._source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={
                **self._variables,
                "PATH": os.defpath,
                "HOME": folder,
                "TMPDIR": folder,
                "OMP_NUM_THREADS": "1",
                # ranks are threads that come and go; memory of their own would stay behind
                "MALLOC_ARENA_MAX": "1",
                # weights are zeros that nobody reads: mapped they cost nothing, recycled a memset
                "MALLOC_MMAP_THRESHOLD_": "65536",
                "PYTHONPATH": os.pathsep.join(_packages()),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            text=True,
            encoding="utf-8",
        )
        hello = exchange(self._process, "", seconds=START_SECONDS)
        if hello is None:
            why = self._loss(START_SECONDS)
            self.close()
            raise VerifyError(f"replay: the child process did not start: {why}")
        self.network = hello["network"]

    def _loss(self, seconds: float) -> str:
        try:
            code = self._process.wait(timeout=1) if self._process else None
        except subprocess.TimeoutExpired:
            code = None
        if code is None:
            return f"no result within {seconds:g} s"
        return f"the process ended with {'signal' if code < 0 else 'code'} {abs(code)}"


def _packages() -> list[str]:
    """Where this process finds packages beside its installation's. The child has another home and
    another working directory, and would miss what the user installed there.
    """
    own = str(Path(verify.__file__).parent.parent)
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return [own, *(os.path.abspath(folder) for folder in named if folder), *user]
