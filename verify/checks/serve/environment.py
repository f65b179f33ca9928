"""The Python that has an engine's packages: made once in the user's cache, or one that is given."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from platformdirs import user_cache_path

from verify.errors import VerifyError

TIME_LIMIT_S = 1800
LOCK = "lock.txt"


def ready(
    name: str, requirements: Sequence[str], *, size: str, tell: Callable[[str], None]
) -> Path:
    """The interpreter of the environment `name`, made first if need be; `size` is said before.

    Every requirement is pinned; what pip installed is kept beside it, with hashes, in `LOCK`.
    Raises `VerifyError` with pip's own words.
    """
    folder = user_cache_path("moe-allreduce-verify") / "serve" / name
    python = folder / "bin" / "python"
    if (folder / LOCK).is_file() and python.is_file():
        return python
    tell(f"making {folder}, once: {size}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _say([sys.executable, "-m", "venv", "--clear", str(folder)])
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            wanted, report = Path(scratch, "wanted.txt"), Path(scratch, "report.json")
            wanted.write_text("\n".join(requirements) + "\n", encoding="utf-8")
            _say(pip_command(python, wanted=wanted, report=report))
            lock = "".join(f"{line}\n" for line in locked(json.loads(report.read_text("utf-8"))))
        (folder / LOCK).write_text(lock, encoding="utf-8")
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


def _say(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIME_LIMIT_S,
            env={**os.environ, "PIP_NO_COLOR": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise VerifyError(f"waited {TIME_LIMIT_S} s for the environment: gave up") from error
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        last = (errors or done.stderr.splitlines() or ["no reason given"])[-1]
        raise VerifyError(f"cannot make the environment: {last}; --python PATH uses another one")
