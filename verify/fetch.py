"""A requirement such as `sglang==0.5.11`, fetched once with pip and kept in the user's cache.

pip asks whatever index the user has configured. Only wheels are taken: reading a sdist's metadata
would run its build code, and this tool never runs what it reads.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from platformdirs import user_cache_path

from verify.errors import VerifyError

TIME_LIMIT_S = 900

# releases are tagged for one interpreter and platform; any machine may read what it never runs
FOREIGN = (
    "--python-version",
    "3.11",
    "--implementation",
    "cp",
    *(
        option
        for platform in ("manylinux_2_34_x86_64", "manylinux_2_28_x86_64", "manylinux2014_x86_64")
        for option in ("--platform", platform)
    ),
)


def fetch(text: str) -> Path:
    """The wheel that satisfies the requirement `text`; raises `VerifyError` when none can be had.

    An exact requirement (`==`) already in the cache needs no index.
    """
    requirement = parse_requirement(text)
    folder = user_cache_path("moe-allreduce-verify") / "sources"
    cached = _cached(requirement, folder)
    if cached is not None:
        return cached
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as draft:
            wheel = _download(requirement, Path(draft))
            # both names lie in one folder: the move is whole or not at all
            return wheel.replace(folder / wheel.name)
    except OSError as error:
        raise VerifyError(f"cannot keep {text} in {folder}: {error.strerror}") from error


def parse_requirement(text: str) -> Requirement:
    """A plain requirement: name and versions. URLs, extras, markers and options are refused."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise VerifyError(
            f"{text!r} is neither a directory, an archive nor a requirement like sglang==0.5.11"
        ) from error
    if requirement.url or requirement.extras or requirement.marker:
        raise VerifyError(f"{text!r}: only a name and versions, as in sglang==0.5.11")
    return requirement


def _cached(requirement: Requirement, folder: Path) -> Path | None:
    if not any(part.operator == "==" for part in requirement.specifier):
        return None
    name = canonicalize_name(requirement.name)
    for wheel in sorted(folder.glob("*.whl")) if folder.is_dir() else ():
        try:
            found, version, _, _ = parse_wheel_filename(wheel.name)
        except InvalidWheelFilename:
            continue
        if found == name and requirement.specifier.contains(version, prereleases=True):
            return wheel
    return None


def _download(requirement: Requirement, folder: Path) -> Path:
    complaints = []
    for options in ((), FOREIGN):
        complaint = _pip(requirement, folder, options)
        wheels = sorted(folder.glob("*.whl"))
        if wheels:
            return wheels[0]
        complaints.append(complaint)
    raise VerifyError(f"pip found no wheel for {requirement}: {complaints[-1]}")


def _pip(requirement: Requirement, folder: Path, options: tuple[str, ...]) -> str:
    """Run pip; returns its last error line."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-input", "--disable-pip-version-check", "--quiet", *options]
    command += ["--dest", str(folder), str(requirement)]
    environment = {**os.environ, "PIP_NO_COLOR": "1"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=TIME_LIMIT_S,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise VerifyError(
            f"waited {TIME_LIMIT_S} s for pip to download {requirement}: gave up"
        ) from error
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    if "No module named pip" in done.stderr:
        raise VerifyError(f"fetching {requirement} needs pip beside {shutil.which(sys.executable)}")
    return (errors or done.stderr.splitlines() or ["no reason given"])[-1]
