"""Results kept in a file, a line of JSON each, so that a sweep can be stopped and gone on with."""

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from verify.checks.serve.case import OUTCOMES, Case, Result
from verify.errors import VerifyError

BEGINNING = b'{"release": "'
KEY = ("source", "builder", "model", "layout", "seed", "arguments", "patch_digest", "thorough")


def digest(*roots: Path) -> str:
    """What files and the files of folders are, names and contents, in 16 hexadecimal digits.

    Compiled bytecode is left out.
    """
    whole = hashlib.sha256()
    for root in roots:
        for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
            if path.is_file() and "__pycache__" not in path.parts:
                name = path.relative_to(root.parent).as_posix()
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                whole.update(f"{name}\0{content}\0".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What cases are run on: digests of the engine's source and of what drives it here."""

    source: str
    builder: str


@dataclass(kw_only=True)
class Results:
    """What some files hold, and the first of them to write to; none: nothing is kept.

    A case is known by its subject, model, layout, seed, arguments, the patch's content, and
    whether it is thorough.
    """

    files: Sequence[Path]
    subject: Subject
    _known: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for file in self.files:
            for row in read(file):
                self._known[_key(row)] = row

    def get(self, case: Case) -> Result | None:
        """The result of `case`, if a file has it."""
        row = self._known.get(_key(self._row(case)))
        return None if row is None else result_of(case, row)

    def keep(self, result: Result) -> None:
        """Add a line; it is in the file, whole, when this returns."""
        row = {**result.as_json(), **self._row(result.case)}
        self._known[_key(row)] = row
        if self.files:
            append(self.files[0], json.dumps(row, allow_nan=False))

    def _row(self, case: Case) -> dict[str, Any]:
        return {
            "source": self.subject.source,
            "builder": self.subject.builder,
            "model": case.model,
            "layout": str(case.layout),
            "seed": case.seed,
            "arguments": list(case.arguments),
            "patch_digest": _content(case.patch),
            "thorough": case.thorough,
        }


def read(file: Path) -> list[dict[str, Any]]:
    """The rows of a file, none where it is not there yet.

    A last line without its end is what a crash left of one, and is no row. Raises `VerifyError`
    naming any other line that is none.
    """
    try:
        *lines, rest = file.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise VerifyError(f"--results {file}: {error.strerror}") from error
    if not (rest.startswith(BEGINNING) or BEGINNING.startswith(rest)):
        # it would be overwritten
        raise VerifyError(f"--results {file}: its end is no result of serve")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            known = row["outcome"] in OUTCOMES and all(name in row for name in KEY)
        except (ValueError, TypeError, KeyError):
            known = False
        if not known:
            raise VerifyError(f"--results {file}, line {number}: not a result of serve")
        rows.append(row)
    return rows


def append(file: Path, line: str) -> None:
    """Add a line after the last whole one. Raises `VerifyError` when it cannot be written."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # sweeps side by side may share a file
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            end = _whole(descriptor)
            os.ftruncate(descriptor, end)
            os.pwrite(descriptor, f"{line}\n".encode(), end)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise VerifyError(f"--results {file}: {error.strerror}") from error


def _whole(descriptor: int) -> int:
    """How many bytes end with a whole line."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0).rfind(b"\n") + 1


def _key(row: dict[str, Any]) -> str:
    return json.dumps([row[name] for name in KEY])


def result_of(case: Case, row: Mapping[str, Any]) -> Result:
    """A row as the result of its case."""
    values = {each.name: row[each.name] for each in fields(Result) if each.name in row}
    # what was compared and has no number is infinitely far
    values["steps"] = {
        step: math.inf if nats is None else nats for step, nats in row.get("steps", {}).items()
    }
    if values["steps"] and row.get("dlogprob") is None:
        values["dlogprob"] = math.inf
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return Result(case=case, **{**values, **lists})


def _content(patch: str | None) -> str | None:
    if patch is None:
        return None
    try:
        return hashlib.sha256(Path(patch).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise VerifyError(f"--patch {patch}: {error.strerror}") from error
