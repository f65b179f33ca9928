"""Where a source lies in its repository, so that code scanning finds the files it names."""

import os
from collections.abc import Iterable
from pathlib import Path


def checkout_of(source: str) -> Path | None:
    """The folder that SOURCE is, or of which it names a revision; None for any other source."""
    for text in (source, source.rpartition("@")[0]):
        if text and os.path.isdir(text):
            return Path(text)
    return None


def file_prefix(source: Path, files: Iterable[str]) -> str:
    """What stands before the files' names in the repository around `source`: `python/`, or nothing.

    `files` are relative to the folder that holds the package, which is `source`, its `python`
    folder, or one of the two above it. Nothing is added for a source outside every repository.
    """
    folder = source.resolve()
    named = next(iter(files), None)
    holders = (folder / "python", folder, *folder.parents[:2])
    holder = next((place for place in holders if named and os.path.isfile(place / named)), None)
    if holder is None:
        return ""
    root = next(
        (place for place in (holder, *holder.parents) if os.path.exists(place / ".git")), holder
    )
    relative = holder.relative_to(root).as_posix()
    return "" if relative == "." else f"{relative}/"
