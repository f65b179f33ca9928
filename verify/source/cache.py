"""Where fetched sources are kept: each wheel with a record of its size and SHA-256.

Only a wheel that is what its record says is believed. A piece, a changed file and a file that
somebody put there have no record that fits, and are fetched again.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

RECORD = ".record.json"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a whole wheel is: bytes and a hexadecimal SHA-256."""

    size: int
    sha256: str


def folder() -> Path:
    """The tool's folder in the user's cache."""
    from platformdirs import user_cache_path  # noqa: PLC0415 (folders need none)

    return user_cache_path("moe-allreduce-verify")


def sources() -> Path:
    """Where fetched wheels lie."""
    return folder() / "sources"


def newest(requirement: Requirement) -> Path | None:
    """The newest whole wheel that satisfies the requirement, None without one."""
    name = canonicalize_name(requirement.name)
    fitting = [
        (version, wheel)
        for found, version, wheel in _wheels()
        if found == name and requirement.specifier.contains(version, prereleases=True)
    ]
    return next((wheel for _, wheel in sorted(fitting, reverse=True) if is_whole(wheel)), None)


def keep(wheel: Path, target: Path) -> Path:
    """Move a whole wheel into the folder `target` of the same file system, with its record."""
    kept = target / wheel.name
    draft = target / f".{uuid4().hex}"
    draft.write_text(json.dumps(asdict(_measured(wheel))), encoding="utf-8")
    # the record last: a wheel without one is fetched again
    wheel.replace(kept)
    draft.replace(_record_of(kept))
    return kept


def is_whole(wheel: Path) -> bool:
    """Whether the file is what its record says; False without a record."""
    try:
        record = json.loads(_record_of(wheel).read_text(encoding="utf-8"))
        # the size first: most of what is broken is a piece
        return bool(wheel.stat().st_size == record["size"]) and asdict(_measured(wheel)) == record
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _wheels() -> Iterator[tuple[str, Version, Path]]:
    place = sources()
    for wheel in sorted(place.glob("*.whl")) if place.is_dir() else ():
        try:
            name, version, _, _ = parse_wheel_filename(wheel.name)
        except InvalidWheelFilename:
            continue
        yield name, version, wheel


def _measured(wheel: Path) -> Record:
    with wheel.open("rb") as stream:
        digest = hashlib.sha256()
        while piece := stream.read(1 << 20):
            digest.update(piece)
        return Record(size=stream.tell(), sha256=digest.hexdigest())


def _record_of(wheel: Path) -> Path:
    return wheel.with_name(wheel.name + RECORD)
