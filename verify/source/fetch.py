"""A requirement such as `name==0.5.11`, fetched once with pip and kept in the user's cache.

pip asks whatever index the user has configured. Only wheels are taken: reading a sdist's metadata
would run its build code, and this tool never runs what it reads. Only an engine and its declared
forks are fetched, as the caller names them: any other name is a path that does not exist.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from verify.errors import VerifyError
from verify.report.progress import waiting
from verify.source import cache

TIME_LIMIT_S = 900
ANSWER_S = 2  # an index that has not answered by then is out of reach
LISTING_S = 30  # ... and one whose answer, which has begun, has not ended by then
LONGER = "PIP_TIMEOUT=60 waits longer"
RETRIES = "1"

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
UNREACHABLE = re.compile(r"after connection broken by '(.*)': /")
UNANSWERED = re.compile(r"Could not fetch URL (\S+): (.*) - skipping")
STATUS = re.compile(r"too many (\d{3}) error responses|\b(\d{3}) (?:Client|Server) Error")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """`offline`: nothing but the cache; `refresh`: fetch again what the cache has."""

    offline: bool = False
    refresh: bool = False


_USUAL = Policy()
_POLICY: ContextVar[Policy] = ContextVar("policy", default=_USUAL)


@contextmanager
def fetching(policy: Policy) -> Iterator[None]:
    """Fetch by `policy` inside the block."""
    token = _POLICY.set(policy)
    try:
        yield
    finally:
        _POLICY.reset(token)


def fetch(text: str, distributions: Collection[str]) -> Path:
    """The wheel that satisfies the requirement `text`; raises `VerifyError` when none can be had.

    One version (`==0.5.11`) that the cache has needs no index; ranges and `==0.5.*` ask it each
    time.
    """
    requirement = parse_requirement(text, distributions)
    policy = _POLICY.get()
    if policy.offline or (names_one_version(requirement) and not policy.refresh):
        cached = cache.newest(requirement)
        if cached is not None:
            return cached
    folder = cache.sources()
    if policy.offline:
        raise VerifyError(f"{text} is not in the cache ({folder}), and --offline fetches nothing")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as draft,
            waiting(f"fetching {text}"),
        ):
            return cache.keep(_download(requirement, Path(draft)), folder)
    except OSError as error:
        raise VerifyError(f"cannot keep {text} in {folder}: {error.strerror}") from error


def parse_requirement(text: str, distributions: Collection[str]) -> Requirement:
    """A plain requirement of one of `distributions`: name and versions.

    Raises `VerifyError`: for text that is no requirement or another project's, as a path that does
    not exist; for URLs, extras and markers with what is wanted instead.
    """
    if "://" in text:
        raise VerifyError(f"{text}: SOURCE is no URL; download it, or clone it and give the folder")
    example = f"{next(iter(distributions), 'name')}==0.5.11"
    only = f"by name only {', '.join(distributions)} can be fetched"
    if os.sep in text:
        raise VerifyError(f"no such file or directory: {text}")
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise VerifyError(
            f"{text!r} is neither a directory, an archive nor a requirement like {example}"
        ) from error
    if canonicalize_name(requirement.name) not in distributions:
        raise VerifyError(f"no such file or directory: {text} ({only})")
    if requirement.url or requirement.extras or requirement.marker:
        raise VerifyError(f"{text!r}: only a name and versions, as in {example}")
    return requirement


def names_one_version(requirement: Requirement) -> bool:
    """Whether there is an `==` (or `===`) without a `.*`."""
    return any(
        part.operator in ("==", "===") and not part.version.endswith(".*")
        for part in requirement.specifier
    )


def _download(requirement: Requirement, folder: Path) -> Path:
    if not os.environ.get("PIP_NO_INDEX"):
        _ask(requirement)
    complaint = ""
    for options in ((), FOREIGN):
        complaint = _pip(requirement, folder, options)
        # what a failed pip has left is a piece of a wheel
        if not complaint:
            return next(folder.glob("*.whl"))
    raise VerifyError(f"pip found no wheel for {requirement}: {complaint}")


def _ask(requirement: Requirement) -> None:
    """Raises `VerifyError` where no index answers in time, or only with an error."""
    # who knows the index to be slow has told pip how long to wait
    told = os.environ.get("PIP_TIMEOUT", os.environ.get("PIP_DEFAULT_TIMEOUT", ""))
    patience = () if told else ("--timeout", str(ANSWER_S))
    words = ("index", "versions", requirement.name, "-vv", "--retries", "0", *patience)
    try:
        # a name server that is silent must not take longer than the index may
        done = _run_pip(
            words,
            limit_s=LISTING_S + (float(told) if told.isdecimal() else 0),
            RES_OPTIONS=f"timeout:{ANSWER_S} attempts:1",
        )
    except subprocess.TimeoutExpired as late:
        waited = f"waited {late.timeout:g} s for the package index, whose list of releases"
        raise VerifyError(
            f"cannot fetch {requirement}: {waited} does not end{'' if told else f'; {LONGER}'}"
        ) from late
    said = UNANSWERED.findall(done.stdout + done.stderr)
    # where it has no such project a further index may have it, and pip says so itself
    wrong = [one for one in said if _status(one[1]) != "404"]
    if done.returncode and wrong:
        url, error = wrong[-1]
        host = urlsplit(url).netloc.rpartition("@")[2]
        raise VerifyError(f"cannot fetch {requirement}: the package index {host} {_reason(error)}")


def _status(error: str) -> str:
    """The HTTP status that pip speaks of, if any."""
    found = STATUS.search(error)
    return (found[1] or found[2]) if found else ""


def _pip(requirement: Requirement, folder: Path, options: tuple[str, ...]) -> str:
    """Run pip; returns its last error line, nothing when it succeeded.

    Raises `VerifyError` where another try with other options cannot help.
    """
    words = ("download", "--no-deps", "--only-binary=:all:", "--quiet", "--retries", RETRIES)
    download = (*words, *options, "--dest", str(folder), str(requirement))
    try:
        done = _run_pip(download, limit_s=TIME_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise VerifyError(
            f"waited {error.timeout:g} s for pip to download {requirement}: gave up"
        ) from error
    if done.returncode == 0:
        return ""
    said = done.stderr.splitlines()
    errors = [line for line in said if line.startswith("ERROR")]
    unreachable = UNREACHABLE.search(done.stderr)
    if unreachable and (not errors or "No matching distribution" in errors[-1]):
        raise VerifyError(
            f"cannot fetch {requirement}: the package index {_reason(unreachable[1])}"
        )
    if "No space left on device" in done.stderr:
        raise VerifyError(f"cannot fetch {requirement}: no space left on the device of {folder}")
    return (errors or said or [f"pip ended with code {done.returncode}"])[-1]


def _run_pip(
    words: tuple[str, ...], *, limit_s: float, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Raises `VerifyError` where there is no pip, `TimeoutExpired` after `limit_s` seconds."""
    command = [sys.executable, "-m", "pip", *words, "--no-input", "--disable-pip-version-check"]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=limit_s,
        env={**os.environ, "PIP_NO_COLOR": "1", **variables},
        check=False,
    )
    if "No module named pip" in done.stderr:
        raise VerifyError(f"fetching needs pip beside {shutil.which(sys.executable)}")
    return done


def _reason(error: str) -> str:
    """The words of pip's nested exception, without its classes and addresses."""
    if status := _status(error):
        return f"answers with status {status}"
    why = error.rpartition(": ")[2].strip("\"'()") or error
    why = f"no answer in time; {LONGER}" if "timed out" in error else why
    return f"is out of reach ({why})"
