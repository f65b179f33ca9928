"""Whether a source's Python files are those of another distribution's wheel, file by file."""

import hashlib
import zipfile
from pathlib import Path

from verify.errors import VerifyError
from verify.report.report import Json


def against(package: Path, wheel: Path) -> dict[str, Json]:
    """`wheel` (its name), how many of the folder `package`'s `*.py` are the `same` there, by
    SHA-256, and which `differ`, are `only_here` or `only_there`, by their paths.

    Raises `VerifyError` for what is no wheel with such a package.
    """
    here = {
        path.relative_to(package.parent).as_posix(): _digest(path.read_bytes())
        for path in package.rglob("*.py")
    }
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".py")]
            inside = [name for name in names if name.startswith(f"{package.name}/")]
            there = {name: _digest(archive.read(name)) for name in inside}
    except (zipfile.BadZipFile, OSError) as error:
        raise VerifyError(f"--against {wheel}: not a wheel that can be read ({error})") from error
    if not there:
        raise VerifyError(f"--against {wheel}: no {package.name}/*.py in it")
    both = sorted(set(here) & set(there))
    differ = [name for name in both if here[name] != there[name]]
    return {
        "wheel": wheel.name,
        "same": len(both) - len(differ),
        "differ": list[Json](differ),
        "only_here": list[Json](sorted(set(here) - set(there))),
        "only_there": list[Json](sorted(set(there) - set(here))),
    }


def words(found: dict[str, Json], *, engine: str) -> str:
    """The same in a line."""
    differ, here, there = (found[name] for name in ("differ", "only_here", "only_there"))
    counts = [len(each) for each in (differ, here, there) if isinstance(each, list)]
    return (
        f"{engine}: {found['same']} Python files are those of {found['wheel']}, "
        f"{counts[0]} differ, {counts[1]} are only here, {counts[2]} only there"
    )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
