"""A SOURCE as a folder that Python can import from: whole, never changed, nothing built."""

import shutil
import zipfile
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from verify.engines.engine import Engine
from verify.engines.sources import fetch
from verify.errors import VerifyError
from verify.source.revision import Revision, contents, listing, revision_of
from verify.source.source import check_name

MAX_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Located:
    """An engine's source: `folder` holds its package."""

    engine: Engine
    folder: Path


def locate(text: str, *, engines: Sequence[Engine], scratch: Path) -> Located:
    """Which engine's source `text` is, and where; archives and revisions go below `scratch`.

    `text` is a directory, a wheel, `PATH@REV` or a requirement; the engine is told by the package
    that it holds. Raises `VerifyError`.
    """
    check_name(text)
    path = Path(text)
    if path.is_dir():
        return _located(text, path, engines)
    revision = None if path.is_file() else revision_of(text)
    if revision is not None:
        return _located(text, _write_revision(revision, engines, scratch), engines)
    wheel = path if path.is_file() else fetch(text)
    return _located(text, _unpack(wheel, engines, scratch / "source"), engines)


def _located(text: str, path: Path, engines: Sequence[Engine]) -> Located:
    for engine in engines:
        for holder in (path / "python", path):
            if (holder / engine.package / "__init__.py").is_file():
                return Located(engine=engine, folder=holder.resolve())
    raise VerifyError(f"no {_names(engines)} in {text}: expected its folder, or python/ with it")


def _write_revision(revision: Revision, engines: Sequence[Engine], scratch: Path) -> Path:
    files = listing(revision)
    roots = [f"{top}{engine.package}/" for engine in engines for top in ("python/", "")]
    root = next((root for root in roots if f"{root}__init__.py" in files), None)
    if root is None:
        raise VerifyError(f"{revision.name}: no {_names(engines)} in it, at the top or in python/")
    target = scratch / revision.commit
    blobs = {name: blob for name, blob in files.items() if name.startswith(root)}
    for name, content in contents(revision, blobs):
        file = _inside(target, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return target


def _unpack(wheel: Path, engines: Sequence[Engine], target: Path) -> Path:
    packages = {engine.package for engine in engines}
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [
                info
                for info in archive.infolist()
                if not info.is_dir() and _belongs(info.filename, packages)
            ]
            if sum(info.file_size for info in members) > MAX_BYTES:
                raise VerifyError(f"{wheel}: unpacks to more than {MAX_BYTES >> 30} GiB")
            for info in members:
                file = _inside(target, info.filename)
                file.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as packed, file.open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
    except (zipfile.BadZipFile, OSError) as error:
        raise VerifyError(f"{wheel}: not a wheel that can be unpacked ({error})") from error
    return target


def _belongs(name: str, packages: Set[str]) -> bool:
    """The package, what pip knows of it, and the libraries that its extensions are linked with."""
    top = name.partition("/")[0]
    return top in packages or top.endswith((".dist-info", ".libs"))


def _names(engines: Sequence[Engine]) -> str:
    return " or ".join(engine.package for engine in engines)


def _inside(target: Path, name: str) -> Path:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts:
        raise VerifyError(f"{name!r}: a path that leaves the source, not written")
    return target / pure
