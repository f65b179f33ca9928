"""`PATH@REV`: files of a git revision, read from the repository's objects alone.

Neither the work tree nor hooks, filters or attributes of the checkout take part, and nothing is
fetched for a partial clone.
"""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from verify.errors import VerifyError

TIME_LIMIT_S = 120
REMOTE = "origin"
SCP = re.compile(r"(\w[^/:]*):(?!//)(.+)")


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


def provenance(source: str) -> tuple[str, str] | None:
    """(the repository's address, the commit) of SOURCE, a folder that git tracks or `PATH@REV`.

    The address is that of the remote, as a URI and without credentials, else the repository's
    folder. None for any other source, and without git.
    """
    try:
        revision = None if Path(source).is_dir() else revision_of(source)
        folder = revision.checkout if revision else Path(source)
        commit = revision.commit if revision else "HEAD"
        if not folder.is_dir():
            return None
        # the folder itself: what a repository ignores is not of its commit
        known = _git(folder, "rev-parse", "--verify", f"{commit}:./")
        answers = (
            _git(folder, "rev-parse", "--verify", commit),
            _git(folder, "rev-parse", "--show-toplevel"),
            _git(folder, "config", "--get", f"remote.{REMOTE}.url"),
        )
    except VerifyError:
        return None
    if known.returncode:
        return None
    commit, top, remote = (one.stdout.decode("utf-8", "replace").strip() for one in answers)
    return _uri(remote) or Path(top).as_uri(), commit


def _uri(remote: str) -> str:
    """A remote as a URI: `git@host:path` is ssh; a path of this machine is none."""
    scp = SCP.fullmatch(remote)
    if scp:
        return f"ssh://{scp[1]}/{scp[2].lstrip('/')}"
    parts = urlsplit(remote)
    if not parts.scheme or not parts.netloc:
        return ""
    # a token in an address is a password
    host = parts.netloc if parts.scheme == "ssh" else parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host).geturl()


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
