"""The Python that has an engine's packages: made once in the user's cache, or one that is given."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from verify.errors import VerifyError
from verify.report.ending import end_with_parent
from verify.report.progress import waiting
from verify.source import cache
from verify.source.fetch import UNREACHABLE

TIME_LIMIT_S = 1800
LOCK = "lock.txt"
DRAFT = ".draft-"


def ready(
    name: str, requirements: Sequence[str], *, size: str, tell: Callable[[str], None]
) -> Path:
    """The interpreter of the environment `name`, made first if need be; `size` is said before.

    Every requirement is pinned; what pip installed is kept in the environment's `LOCK`, with
    hashes. An environment is there whole or not at all, whatever stops its making. Raises
    `VerifyError` with pip's own words.
    """
    folder = cache.folder() / "serve" / name
    python = folder / "bin" / "python"
    if _is_whole(folder):
        return python
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if not _is_whole(folder):
                tell(f"making {folder}, once: {size}")
                _make(folder, requirements)
    except OSError as error:
        raise VerifyError(f"cannot make {folder}: {error.strerror}") from error
    return python


def pip_command(python: Path, *, wanted: Path, report: Path) -> list[str]:
    """Wheels only, exactly those of `wanted`: nothing is built, nothing else is pulled in."""
    command = [str(python), "-m", "pip", "install", "--no-deps", "--only-binary=:all:"]
    command += ["--no-input", "--disable-pip-version-check", "--quiet", "--report", str(report)]
    return [*command, "--requirement", str(wanted)]


def locked(report: Mapping[str, object]) -> list[str]:
    """`name==version --hash=sha256:...`, sorted, from pip's installation report."""
    lines = []
    for item in report["install"]:  # type: ignore[attr-defined]
        metadata, archive = item["metadata"], item["download_info"].get("archive_info", {})
        digest = archive.get("hashes", {}).get("sha256", "")
        mark = f" --hash=sha256:{digest}" if digest else ""
        lines.append(f"{metadata['name'].lower()}=={metadata['version']}{mark}")
    return sorted(lines)


def _is_whole(folder: Path) -> bool:
    return (folder / LOCK).is_file() and (folder / "bin" / "python").is_file()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else makes an environment meanwhile; what a killed one left of this is removed."""
    lock = os.open(folder.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with waiting(f"another command that makes an environment in {folder.parent}"):
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.parent.glob(f"{DRAFT}{folder.name}-*"):
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        os.close(lock)


def _make(folder: Path, requirements: Sequence[str]) -> None:
    # only its Python is ever started, by path: that may be moved
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{DRAFT}{folder.name}-"))
    try:
        with waiting(f"pip, installing {len(requirements)} packages"):
            _say([sys.executable, "-m", "venv", str(draft)])
            wanted, report = draft / "wanted.txt", draft / "report.json"
            wanted.write_text("\n".join(requirements) + "\n", encoding="utf-8")
            _say(pip_command(draft / "bin" / "python", wanted=wanted, report=report))
        lines = locked(json.loads(report.read_text("utf-8")))
        (draft / LOCK).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _say(command: list[str]) -> None:
    # a session of its own: pip's own children end with it, however this ends
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "PIP_NO_COLOR": "1"},
        start_new_session=True,
        preexec_fn=end_with_parent,  # noqa: PLW1509 (the one other thread here only waits)
    ) as process:
        try:
            _, said = process.communicate(timeout=TIME_LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise VerifyError(f"waited {TIME_LIMIT_S} s for pip to make it: gave up") from error
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode and UNREACHABLE.search(said):
        raise VerifyError("cannot make the environment: the package index is out of reach")
    if process.returncode:
        errors = [line for line in said.splitlines() if line.startswith("ERROR")]
        last = (errors or said.splitlines() or ["no reason given"])[-1]
        raise VerifyError(f"cannot make the environment: {last}; --python PATH uses another one")
