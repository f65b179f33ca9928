"""One source, wherever it lies: directory, wheel, sdist, git revision or requirement.

Nothing is imported or executed. Files are read one at a time, when asked for, within limits, so
that a hostile archive costs a line and not the machine. Paths are relative to the folder that
holds the package.
"""

import io
import os
import stat
import tarfile
import tokenize
import zipfile
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    parse_sdist_filename,
    parse_wheel_filename,
)

from verify.errors import VerifyError
from verify.source.revision import Revision, contents, folder_in, listing, revision_of
from verify.source.unshared import open_unshared

MAX_FILE_BYTES = 4 << 20
MAX_FILES = 50_000
MAX_ARCHIVE_BYTES = 2 << 30
MAX_KEPT_BYTES = 128 << 20
VERSION_FILES = ("_version.py", "version.py")


@dataclass(frozen=True, kw_only=True)
class Package:
    """The Python package that a source is one of.

    `inside` is the folder in it by which it is known, and whose files are wanted; `distributions`
    are the names that may be fetched; `generation` says in a word how a source is built. `web` is
    the address of a version's files, with a final slash, `requirement` what names the version in a
    command; both are empty for what was never released.
    """

    name: str
    inside: str
    distributions: tuple[str, ...] = ()
    generation: "Callable[[SourceTree], str]" = lambda _: "unknown"
    web: Callable[[str], str] = lambda _: ""
    requirement: Callable[[str], str] = lambda _: ""


@dataclass(frozen=True, kw_only=True)
class SourceTree:
    """The Python files of one source; `paths` is sorted, `skipped` says what was left out and why.

    `with open_source(...) as tree:` closes the archive at the end.
    """

    package: Package
    version: str
    paths: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    _load: Callable[[str], bytes] = field(repr=False)
    _close: Callable[[], None] = field(default=lambda: None, repr=False)

    def read(self, path: str) -> str:
        """The text of one file, decoded as Python would; `VerifyError` says why it cannot be."""
        if path not in self._known:
            raise VerifyError(f"{path}: not in {self.name} {self.version}")
        raw = self._load(path)
        if len(raw) > MAX_FILE_BYTES:
            raise VerifyError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB, not read")
        try:
            return raw.decode(_encoding(raw))
        except (SyntaxError, UnicodeDecodeError, LookupError) as error:
            raise VerifyError(f"{path}: not text that Python can decode ({error})") from error

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.paths)

    def under(self, prefix: str) -> tuple[str, ...]:
        """The paths that start with `prefix`."""
        return tuple(path for path in self.paths if path.startswith(prefix))

    @property
    def name(self) -> str:
        """The package's."""
        return self.package.name

    @property
    def generation(self) -> str:
        """How it is built, told by the source and not by its version."""
        return self.package.generation(self)

    def close(self) -> None:
        """Let go of the archive."""
        self._close()

    def __enter__(self) -> "SourceTree":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _encoding(raw: bytes) -> str:
    """As Python finds it: by a byte order mark or in a comment in the first two lines."""
    first = raw.find(b"\n") + 1
    second = raw.find(b"\n", first) if first else -1
    if raw.startswith(BOM_UTF8) or b"coding" in (raw[:second] if second >= 0 else raw):
        return tokenize.detect_encoding(io.BytesIO(raw).readline)[0]
    return "utf-8"


def open_source(text: str, package: Package, *, below: str | None = None) -> SourceTree:
    """Open SOURCE as described in the module; `VerifyError` says in a line why it cannot be.

    `below` is the folder of the package whose files are wanted, empty for all of it; unless it is
    given, the one that the package is known by.
    """
    below = package.inside if below is None else below
    check_name(text)
    path = Path(text)
    try:
        if path.is_dir():
            return _directory(path, package, below)
        if path.is_file():
            return _archive(path, package, below)
    except (OSError, ValueError) as error:
        raise VerifyError(f"cannot open {text!r}: {error}") from error
    revision = revision_of(text)
    if revision is not None:
        return _revision(revision, package, below)
    from verify.source.fetch import fetch  # noqa: PLC0415 (only a requirement needs a network)

    return _archive(fetch(text, package.distributions), package, below)


def check_name(text: str) -> None:
    """Raise `VerifyError` for a SOURCE that names nothing, or a device, a pipe, a socket."""
    if not text.strip():
        raise VerifyError("SOURCE is empty; `.` is this folder")
    path = Path(text)
    try:
        odd = path.exists() and not (path.is_dir() or path.is_file())
    except (OSError, ValueError) as error:
        raise VerifyError(f"cannot open {text!r}: {error}") from error
    if odd:
        raise VerifyError(f"{text}: neither a directory nor a regular file")


def _directory(path: Path, package: Package, below: str) -> SourceTree:
    name, inside = package.name, package.inside
    around = (path / "python" / name, path / name, path, *_holders(path, inside))
    root = next((candidate for candidate in around if (candidate / inside).is_dir()), None)
    if root is None:
        raise VerifyError(f"no {name} source in {path}: {_expected(package)}")
    files: dict[str, Path] = {}
    skipped: list[str] = []

    # links to folders are not followed, so that a loop of links ends
    def cannot_enter(error: OSError) -> None:
        shown = Path(error.filename).relative_to(root).as_posix()
        skipped.append(f"{name}/{shown}: {error.strerror}")

    for folder, folders, names in os.walk(root / below, onerror=cannot_enter, followlinks=False):
        folders.sort()
        for found in names:
            if found.endswith(".py"):
                file = Path(folder, found)
                shown = f"{name}/{file.relative_to(root).as_posix()}"
                why = _unreadable(file, root)
                if why:
                    skipped.append(f"{shown}: {why}")
                else:
                    files[shown] = file
        _check_count(len(files), path)
    return SourceTree(
        package=package,
        version=_directory_version(root, name),
        paths=tuple(sorted(files)),
        skipped=tuple(sorted(skipped)),
        _load=lambda shown: _read_file(files[shown], shown),
    )


def _expected(package: Package) -> str:
    name, inside = package.name, package.inside
    return f"expected python/{name}/{inside}, {name}/{inside} or {inside}"


def _holders(path: Path, inside: str) -> tuple[Path, ...]:
    """The package around the folder by which it is known, where that itself was given."""
    folder = path.resolve()
    return (folder.parent,) if folder.name == inside else ()


def _revision(revision: Revision, package: Package, below: str) -> SourceTree:
    """The `.py` files of a commit, all of them in memory: git is asked once."""
    files = listing(revision)
    here, inside = folder_in(revision), f"{package.inside}/"
    if not here and revision.checkout.resolve().name == package.inside:
        # the repository is the folder by which the package is known
        files, here = {f"{inside}{name}": blob for name, blob in files.items()}, inside
    roots = [f"{here}python/{package.name}/", f"{here}{package.name}/", here]
    if f"/{here}".endswith(f"/{inside}"):
        roots.append(here.removesuffix(inside))
    known = (r for r in roots if any(n.startswith(f"{r}{inside}") for n in files))
    root = next(known, None)
    if root is None:
        raise VerifyError(f"no {package.name} source in {revision.name}: {_expected(package)}")
    wanted = f"{root}{below}/" if below else root
    blobs = {n: blob for n, blob in files.items() if n.startswith(wanted) and n.endswith(".py")}
    _check_count(len(blobs), revision.checkout)
    kept = {f"{package.name}/{n[len(root) :]}": text for n, text in contents(revision, blobs)}
    about = {n: files[n] for n in (f"{root}{name}" for name in VERSION_FILES) if n in files}
    versions = [
        _assigned_version(content.decode("utf-8", "replace"))
        for _, content in contents(revision, about)
    ]
    version = next(filter(None, versions), None)
    short = revision.commit[:12]
    return SourceTree(
        package=package,
        version=f"{version} ({short})" if version else short,
        paths=tuple(sorted(kept)),
        _load=kept.__getitem__,
    )


def _unreadable(file: Path, package: Path) -> str | None:
    try:
        mode = file.lstat().st_mode
        if stat.S_ISLNK(mode):
            target = file.resolve(strict=True)
            if not target.is_relative_to(package.resolve()):
                return "a link that leaves the source, not followed"
            mode = target.stat().st_mode
        if not stat.S_ISREG(mode):
            return "not a regular file"
    except (OSError, RuntimeError):
        return "a link that leads nowhere"
    return None


def _read_file(file: Path, shown: str) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise VerifyError(f"{shown}: {error.strerror}") from error


def _directory_version(package: Path, name: str) -> str:
    for info in sorted(package.parent.glob(f"{name}-*.dist-info")):
        return info.name[len(name) + 1 : -len(".dist-info")]
    for known in VERSION_FILES:
        file = package / known
        if file.is_file():
            version = _assigned_version(_read_file(file, known).decode("utf-8", "replace"))
            if version:
                return version
    return "unknown"


def _assigned_version(text: str) -> str | None:
    for line in text.splitlines():
        name, _, value = line.partition("=")
        literal = value.strip().strip("\"'")
        named = name.strip().startswith(("__version__", "version"))
        # 0.0.0 is what a build without tags falls back to
        if named and literal[:1].isdigit() and not literal.startswith("0.0.0"):
            return literal
    return None


def _archive(path: Path, package: Package, below: str) -> SourceTree:
    if zipfile.is_zipfile(path):
        return _zip(path, package, below)
    try:
        return _tar(path, package, below)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise VerifyError(f"{path} is neither a directory, a wheel nor a sdist") from error


def _zip(path: Path, package: Package, below: str) -> SourceTree:
    file = open_unshared(path)
    try:
        archive = zipfile.ZipFile(file)
    # what a damaged table of contents raises has no common base
    except Exception as error:
        file.close()
        raise VerifyError(f"{path}: a damaged archive ({error})") from error
    infos = {info.filename: info for info in archive.infolist() if info.filename.endswith(".py")}
    _check_count(len(infos), path)
    members, skipped = _package_members(infos, path, package, below)

    def load(shown: str) -> bytes:
        try:
            with archive.open(infos[members[shown]]) as stream:
                return stream.read(MAX_FILE_BYTES + 1)
        # zlib.error and friends have no common base
        except Exception as error:
            raise VerifyError(f"{shown}: damaged in the archive ({error})") from error

    return SourceTree(
        package=package,
        version=_file_version(path.name),
        paths=tuple(sorted(members)),
        skipped=skipped,
        _load=load,
        _close=file.close,
    )


def _tar(path: Path, package: Package, below: str) -> SourceTree:
    kept: dict[str, bytes] = {}
    total = 0
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            total += member.size
            if total > MAX_ARCHIVE_BYTES:
                raise VerifyError(f"{path}: unpacks to more than {MAX_ARCHIVE_BYTES >> 30} GiB")
            wanted = f"/{package.name}/{below}".rstrip("/") + "/" in f"/{member.name}"
            if member.isfile() and member.name.endswith(".py") and wanted:
                stream = archive.extractfile(member)
                kept[member.name] = stream.read(MAX_FILE_BYTES + 1) if stream else b""
            _check_count(len(kept), path)
            if sum(map(len, kept.values())) > MAX_KEPT_BYTES:
                raise VerifyError(f"{path}: more than {MAX_KEPT_BYTES >> 20} MiB of Python")
    members, skipped = _package_members(kept, path, package, below)
    return SourceTree(
        package=package,
        version=_file_version(path.name),
        paths=tuple(sorted(members)),
        skipped=skipped,
        _load=lambda shown: kept[members[shown]],
    )


def _package_members(
    names: Iterable[str] | Mapping[str, object], path: Path, package: Package, below: str
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Shown path -> name in the archive, for the files of the package closest to the top."""
    marker = f"{package.name}/{package.inside}/"
    safe: list[str] = []
    skipped: list[str] = []
    for name in names:
        unsafe = name.startswith("/") or ".." in name.split("/")
        if unsafe or "\\" in name or ":" in name:
            skipped.append(f"{name!r}: a path that leaves the archive, not read")
        else:
            safe.append(name)
    roots = [name[: f"/{name}".index(f"/{marker}")] for name in safe if f"/{marker}" in f"/{name}"]
    if not roots:
        raise VerifyError(f"no {marker} in {path}: not an archive of {package.name}")
    root = min(roots, key=len)
    wanted = f"{root}{package.name}/{below}".rstrip("/") + "/"
    members = {name[len(root) :]: name for name in safe if name.startswith(wanted)}
    return members, tuple(sorted(skipped))


def _file_version(name: str) -> str:
    try:
        if name.endswith(".whl"):
            return str(parse_wheel_filename(name)[1])
        return str(parse_sdist_filename(name)[1])
    except (InvalidWheelFilename, InvalidSdistFilename):
        return "unknown"


def _check_count(count: int, path: Path) -> None:
    if count > MAX_FILES:
        raise VerifyError(f"{path}: more than {MAX_FILES} Python files")
