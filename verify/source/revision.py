"""`PATH@REV`: files of a git revision, read from the repository's objects alone.

Neither the work tree nor hooks, filters or attributes of the checkout take part, and nothing is
fetched for a partial clone.
"""

import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from verify.errors import VerifyError

TIME_LIMIT_S = 120


@dataclass(frozen=True, kw_only=True)
class Revision:
    """A commit of the repository around `checkout`; `name` is what the person typed."""

    checkout: Path
    commit: str
    name: str


def revision_of(text: str) -> Revision | None:
    """The revision that `PATH@REV` names; None where `text` is no such thing.

    Raises `VerifyError` where PATH is a directory and git knows no such commit in it.
    """
    path, at, name = text.rpartition("@")
    checkout = Path(path)
    if not at or not path or not checkout.is_dir():
        return None
    if not name or name.startswith("-"):
        raise VerifyError(f"{text}: {name!r} is no git revision, no such commit")
    answer = _git(checkout, "rev-parse", "--verify", f"{name}^{{commit}}")
    if answer.returncode:
        said = answer.stderr.decode("utf-8", "replace").strip().splitlines()
        why = (
            f" ({said[-1]})" if said and "needed a single revision" not in said[-1].lower() else ""
        )
        raise VerifyError(f"{text}: git knows no such commit{why}")
    return Revision(checkout=checkout, commit=answer.stdout.decode().strip(), name=text)


def folder_in(revision: Revision) -> str:
    """Where `checkout` lies in its repository: `python/`, or nothing at the top."""
    answer = _git(revision.checkout, "rev-parse", "--show-prefix")
    return answer.stdout.decode("utf-8", "surrogateescape").rstrip("\n")


def listing(revision: Revision) -> dict[str, str]:
    """Path from the repository's top -> object, of regular files; no links, no submodules."""
    answer = _git(revision.checkout, "ls-tree", "-r", "-z", "--full-tree", revision.commit)
    if answer.returncode:
        raise VerifyError(f"{revision.name}: git cannot list the revision's files")
    files = {}
    for entry in answer.stdout.split(b"\0"):
        meta, _, name = entry.partition(b"\t")
        if meta.startswith(b"100"):
            files[name.decode("utf-8", "surrogateescape")] = meta.split()[2].decode()
    return files


def contents(revision: Revision, blobs: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """(path, content) of each of `blobs`, which is a part of a `listing`."""
    wanted = "".join(f"{blob}\n" for blob in blobs.values()).encode()
    answer = _git(revision.checkout, "cat-file", "--batch", given=wanted)
    place = 0
    for name in blobs:
        end = answer.stdout.find(b"\n", place)
        size = answer.stdout[place:end].split()[2:]
        # `HASH missing`: a partial clone has left the object with its server
        if answer.returncode or end < 0 or not size:
            raise VerifyError(f"{revision.name}: git cannot read {name}; is the clone complete?")
        start = end + 1
        place = start + int(size[0]) + 1
        yield name, answer.stdout[start : place - 1]


def _git(checkout: Path, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["git", "-C", str(checkout), *words],
            input=given,
            capture_output=True,
            timeout=TIME_LIMIT_S,
            env={**os.environ, "GIT_NO_LAZY_FETCH": "1", "GIT_NO_REPLACE_OBJECTS": "1"},
            check=False,
        )
    except FileNotFoundError as error:
        raise VerifyError("PATH@REV needs git, which is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise VerifyError(f"waited {TIME_LIMIT_S} s for git in {checkout}: gave up") from error
