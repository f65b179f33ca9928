"""A SOURCE as a folder that Python can import from: whole, never changed, nothing built."""

import os
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from verify.errors import VerifyError
from verify.fetch import fetch

GIT_S = 120
MAX_BYTES = 1 << 30


def importable(text: str, *, package: str, scratch: Path) -> Path:
    """The folder that holds `package`; wheels and revisions are unpacked into `scratch`.

    `text` is a directory, a wheel, `PATH@REV` or a requirement. Raises `VerifyError`.
    """
    path = Path(text)
    if path.is_dir():
        return _holder(path, package)
    if path.is_file():
        return _unpack(path, package, scratch)
    checkout, at, revision = text.rpartition("@")
    if at and Path(checkout).is_dir():
        return read_revision(Path(checkout), revision, package=package, scratch=scratch)
    if os.sep in text or text.endswith(".whl"):
        raise VerifyError(f"no such file or directory: {text}")
    return _unpack(fetch(text), package, scratch)


def read_revision(checkout: Path, revision: str, *, package: str, scratch: Path) -> Path:
    """The package of a git revision, from the repository's objects alone.

    Neither the work tree nor hooks, filters or attributes of the checkout take part. Raises
    `VerifyError` for what git does not know, and for a revision without the package.
    """
    listing = _git(checkout, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if listing is None:
        raise VerifyError(f"{checkout}@{revision}: git knows no such commit")
    commit = listing.decode().strip()
    tree = _git(checkout, "ls-tree", "-r", "-z", "--full-tree", commit) or b""
    for root in (f"python/{package}/", f"{package}/"):
        blobs = dict(_blobs(tree, root))
        if blobs:
            _write_blobs(checkout, blobs, scratch / commit)
            return _holder(scratch / commit, package)
    raise VerifyError(f"{checkout}@{revision}: neither python/{package} nor {package} in it")


def _blobs(tree: bytes, root: str) -> Iterator[tuple[str, str]]:
    """Path -> object, of regular files below `root`; links and submodules are left out."""
    for entry in tree.split(b"\0"):
        meta, _, name = entry.partition(b"\t")
        shown = name.decode("utf-8", "surrogateescape")
        if shown.startswith(root) and meta.startswith(b"100"):
            yield shown, meta.split()[2].decode()


def _write_blobs(checkout: Path, blobs: dict[str, str], target: Path) -> None:
    wanted = "".join(f"{blob}\n" for blob in blobs.values()).encode()
    content = _git(checkout, "cat-file", "--batch", given=wanted)
    if content is None:
        raise VerifyError(f"{checkout}: git cannot read the revision's files")
    place = 0
    for name in blobs:
        end = content.index(b"\n", place)
        size = int(content[place:end].split()[2])
        file = _inside(target, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content[end + 1 : end + 1 + size])
        place = end + size + 2


def _git(checkout: Path, *words: str, given: bytes = b"") -> bytes | None:
    """Standard output, None when git fails; nothing is fetched for a partial clone."""
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), *words],
            input=given,
            capture_output=True,
            timeout=GIT_S,
            env={**os.environ, "GIT_NO_LAZY_FETCH": "1", "GIT_NO_REPLACE_OBJECTS": "1"},
            check=False,
        )
    except FileNotFoundError as error:
        raise VerifyError("PATH@REV needs git, which is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise VerifyError(f"waited {GIT_S} s for git in {checkout}: gave up") from error
    return done.stdout if done.returncode == 0 else None


def _unpack(wheel: Path, package: str, scratch: Path) -> Path:
    target = scratch / "source"
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [
                info
                for info in archive.infolist()
                if not info.is_dir()
                and (info.filename.startswith(f"{package}/") or ".dist-info/" in info.filename)
            ]
            if sum(info.file_size for info in members) > MAX_BYTES:
                raise VerifyError(f"{wheel}: unpacks to more than {MAX_BYTES >> 30} GiB")
            for info in members:
                file = _inside(target, info.filename)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(archive.read(info))
    except (zipfile.BadZipFile, OSError) as error:
        raise VerifyError(f"{wheel}: not a wheel that can be unpacked ({error})") from error
    return _holder(target, package)


def _inside(target: Path, name: str) -> Path:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts:
        raise VerifyError(f"{name!r}: a path that leaves the source, not written")
    return target / pure


def _holder(path: Path, package: str) -> Path:
    for holder in (path / "python", path):
        if (holder / package / "__init__.py").is_file():
            return holder.resolve()
    raise VerifyError(f"no {package} in {path}: expected python/{package} or {package}")
