"""One process of the engine's Python for many cases, with limits; started when first needed."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import verify
from verify.emulator.exchange import exchange
from verify.errors import VerifyError

START_S = 180.0
CASE_S = 120.0
SLACK_S = 30.0  # between a case's own limit and giving its process up

# the engine's Python finds this package and nothing else of ours
_BOOTSTRAP = """
import importlib.util, sys
folder, name, release = sys.argv[1:4]
sys.path.insert(0, release) if release else None
spec = importlib.util.spec_from_file_location(
    "verify", folder + "/__init__.py", submodule_search_locations=[folder])
sys.modules["verify"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from verify.checks.serve import zygote
zygote.main(name)
"""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What starts an engine: its Python, the folder its source is imported from, who drives it.

    One that is not `caged` has this process's environment and home, where kernels that were
    compiled once lie.
    """

    python: Path
    drive: str
    source: Path | None = None
    variables: Mapping[str, str]
    caged: bool = True


class Session:
    """`with Session(engine) as session: session.run(...)`; started again after it was lost."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._process: subprocess.Popen[str] | None = None
        self._folder: Path | None = None
        self._count = 0
        self.hello: dict[str, Any] = {}

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def folder(self) -> Path:
        """A scratch folder that lives as long as the session."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="verify-serve-"))
        return self._folder

    def run(self, case: Mapping[str, Any], *, ranks: int, limit: float = CASE_S) -> dict[str, Any]:
        """What the zygote answers; `lost` says why where none came. `limit` is in seconds."""
        self.start()
        self._count += 1
        folder = self.folder / f"case{self._count}"
        folder.mkdir()
        request = {"case": dict(case), "ranks": ranks, "limit": limit, "folder": str(folder)}
        answer = exchange(self._process, json.dumps(request), seconds=limit + SLACK_S)
        if answer is None:
            self._end()
            answer = {"lost": f"the engine's process gave no answer within {limit + SLACK_S:g} s"}
        return {**answer, "folder": str(folder)}

    def start(self) -> None:
        """Import the engine. Raises `VerifyError` with the engine's own words if it fails."""
        if self._process is not None and self._process.poll() is None:
            return
        engine = self._engine
        log = self.folder / "engine.log"
        command = [str(engine.python), "-c", _BOOTSTRAP, str(Path(verify.__file__).parent)]
        command += [engine.drive, str(engine.source or "")]
        with log.open("w") as stream:
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stream,
                    cwd=self.folder,
                    env=self._environment(),
                    text=True,
                    encoding="utf-8",
                    start_new_session=True,
                )
            except OSError as error:
                raise VerifyError(f"cannot start {engine.python}: {error.strerror}") from error
        hello = exchange(self._process, "", seconds=START_S)
        if hello is None or "error" in hello:
            said = (hello or {}).get("error") or log.read_text("utf-8", "replace")
            last = _last(said)
            late = hello is None and self._runs()
            self._end()
            if late:
                waited = f"waited {START_S:g} s for {engine.python} to import the engine"
                raise VerifyError(f"{waited}: gave up ({last})")
            raise VerifyError(f"{engine.python} cannot import the engine: {last}")
        self.hello = hello

    def close(self) -> None:
        """End the process, whatever it runs, and remove the scratch folder."""
        self._end()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _environment(self) -> dict[str, str]:
        folder = str(self.folder)
        own = {"PATH": os.defpath, "HOME": folder} if self._engine.caged else os.environ
        return {
            **own,
            "TMPDIR": folder,
            "PYTHONDONTWRITEBYTECODE": "1",
            **self._engine.variables,
        }

    def _runs(self) -> bool:
        try:
            # one that has closed its output needs a moment to end
            self._process.wait(1.0) if self._process else None
        except subprocess.TimeoutExpired:
            return True
        return False

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _last(said: str) -> str:
    """The last line, and of a traceback the last place in it."""
    lines = [line.strip() for line in said.strip().splitlines()] or ["no reason given"]
    places = [line for line in lines if line.startswith("File ")]
    return f"{lines[-1]} ({places[-1]})" if places and lines[-1] != places[-1] else lines[-1]
