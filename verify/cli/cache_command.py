"""`cache dir|list|clean`: where fetched sources are, which they are, and away with them."""

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

from verify.errors import VerifyError
from verify.report.report import Report, TableSection
from verify.source import cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do."""
    parser.add_argument(
        "action",
        choices=("dir", "list", "clean"),
        help="dir: where it is; list: what it holds; clean: remove all of it",
    )


def run(arguments: argparse.Namespace) -> Report:
    """Do it; raises `VerifyError` when something cannot be removed."""
    folder = cache.folder()
    entries = tuple(_entries(folder))
    total = sum(size for _, size, _ in entries)
    if arguments.action == "clean":
        _remove(folder)
    listed = TableSection(
        title=f"In {folder}",
        columns=("MB", "what", "state"),
        rows=tuple((f"{size / 1e6:.1f}", name, state) for name, size, state in entries),
    )
    done = "removed from" if arguments.action == "clean" else "in"
    return Report(
        command="cache",
        title=str(folder),
        summary=f"{len(entries)} entries, {total / 1e6:.1f} MB {done} {folder}",
        payload={
            "folder": str(folder),
            "entries": [{"name": name, "bytes": size, "state": s} for name, size, s in entries],
        },
        sections=(listed,) if arguments.action == "list" and entries else (),
        findings=(),
    )


def _entries(folder: Path) -> Iterator[tuple[str, int, str]]:
    """(name, bytes, state) of each wheel, and of each engine's environment."""
    for file in sorted(cache.sources().glob("*.whl")) if cache.sources().is_dir() else ():
        state = "whole" if cache.is_whole(file) else "not as recorded, will be fetched again"
        yield file.name, file.stat().st_size, state
    serve = folder / "serve"
    for place in sorted(serve.iterdir()) if serve.is_dir() else ():
        size = sum(f.lstat().st_size for f in place.rglob("*") if not f.is_dir())
        yield f"serve/{place.name}", size, "environment"


def _remove(folder: Path) -> None:
    if not folder.exists():
        return
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise VerifyError(f"cannot remove {error.filename}: {error.strerror}") from error
