"""A SOURCE as a folder that Python can import from: whole, never changed, nothing built."""

import zipfile
from pathlib import Path, PurePosixPath

from verify.errors import VerifyError
from verify.fetch import fetch
from verify.revision import Revision, contents, listing, revision_of

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
    revision = revision_of(text)
    if revision is not None:
        return read_revision(revision, package=package, scratch=scratch)
    return _unpack(fetch(text), package, scratch)


def read_revision(revision: Revision, *, package: str, scratch: Path) -> Path:
    """The package of a git revision, written below `scratch`; raises `VerifyError` without it."""
    files = listing(revision)
    target = scratch / revision.commit
    for root in (f"python/{package}/", f"{package}/"):
        blobs = {name: blob for name, blob in files.items() if name.startswith(root)}
        for name, content in contents(revision, blobs) if blobs else ():
            file = _inside(target, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        if blobs:
            return _holder(target, package)
    raise VerifyError(f"{revision.name}: neither python/{package} nor {package} in it")


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
