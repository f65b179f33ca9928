"""Reports saved as JSON, read back: for baselines and comparisons."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from verify.errors import VerifyError
from verify.report.report import REACHES, SCHEMA_VERSION, Finding, Json, Reach, Related, Report

T = TypeVar("T")

MAX_BYTES = 64 * 1024 * 1024


def load(path: Path) -> Mapping[str, Json]:
    """The JSON object in the file. Raises `VerifyError` for anything else."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise VerifyError(f"{path}: larger than {MAX_BYTES >> 20} MiB, not a saved report")
        report = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=_no_number)
    except OSError as error:
        raise VerifyError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise VerifyError(
            f"{path} is not JSON ({error}); save a report with --format json"
        ) from error
    if not isinstance(report, dict):
        raise VerifyError(f"{path} is not a saved report: it holds no JSON object")
    version = report.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise VerifyError(
            f"{path} has schema_version {version!r}; this version reads {SCHEMA_VERSION}"
        )
    return report


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def as_saved(report: Report) -> Mapping[str, Json]:
    """The report as `load` would read it back: lists for tuples, nothing that JSON has not."""
    saved: Mapping[str, Json] = json.loads(json.dumps(report.as_json()))
    return saved


def findings_of(report: Mapping[str, Json], path: Path) -> tuple[Mapping[str, Json], ...]:
    """The report's findings as JSON objects."""
    return _objects(report, "findings", path)


def sites_of(report: Mapping[str, Json], path: Path) -> tuple[Mapping[str, Json], ...]:
    """The report's sites as JSON objects; none where the command has no sites."""
    return _objects({"sites": [], **report}, "sites", path)


def _objects(report: Mapping[str, Json], key: str, path: Path) -> tuple[Mapping[str, Json], ...]:
    entries = report.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise VerifyError(f"{path} is not a saved report: {key!r} is not a list of objects")
    return tuple(entries)


def finding_from(entry: Mapping[str, Json], path: Path) -> Finding:
    """A finding from its JSON form; keys that this version does not know are left out.

    Raises `VerifyError` when a value is of another kind than `Finding` has.
    """
    try:
        return Finding(
            rule=_value(entry, "rule", str) or "unnamed",
            message=_value(entry, "message", str) or "",
            fix=_value(entry, "fix", str) or "",
            subject=_value(entry, "subject", str) or "",
            kind=_value(entry, "kind", str) or "",
            file=_value(entry, "file", str),
            line=_value(entry, "line", int),
            cls=_value(entry, "cls", str),
            method=_value(entry, "method", str),
            row=_value(entry, "row", str),
            deployment=_value(entry, "deployment", dict),
            counts=_counts(_value(entry, "counts", list)),
            groups=_groups(_value(entry, "groups", dict)),
            sums=_value(entry, "sums", str) or "",
            rows=_texts(entry, "rows"),
            takes=_texts(entry, "takes"),
            conditions=_texts(entry, "conditions"),
            reach=_reach(_value(entry, "reach", str)),
            launch=_texts(entry, "launch"),
            needs=_texts(entry, "needs"),
            refused=_texts(entry, "refused"),
            related=tuple(map(_related, _value(entry, "related", list) or ())),
        )
    except TypeError as error:
        raise VerifyError(f"{path} is not a saved report: in a finding, {error}") from error


def _value(entry: Mapping[str, Json], key: str, kind: type[T]) -> T | None:
    value = entry.get(key)
    if value is None or isinstance(value, kind):
        return value
    raise TypeError(f"{key!r} is {type(value).__name__}, not {kind.__name__}")


def _texts(entry: Mapping[str, Json], key: str) -> tuple[str, ...]:
    """A list of texts. Raises `TypeError` for anything else."""
    values = _value(entry, key, list) or ()
    if not all(isinstance(value, str) for value in values):
        raise TypeError(f"{key!r} holds something that is no text")
    return tuple(values)


def _reach(value: str | None) -> Reach | None:
    """One of the three reaches. Raises `TypeError` for another word."""
    for reach in REACHES:
        if value == reach:
            return reach
    if value is None:
        return None
    raise TypeError(f"'reach' is {value!r}, not one of {', '.join(REACHES)}")


def _related(entry: Json) -> Related:
    """A related place. Raises `TypeError` for anything else."""
    if not isinstance(entry, dict):
        raise TypeError("'related' holds something that is no object")
    file, line = _value(entry, "file", str), _value(entry, "line", int)
    if file is None or line is None:
        raise TypeError("a related place has no file or no line")
    return Related(file=file, line=line, what=_value(entry, "what", str) or "")


def _counts(rows: list[list[int]] | None) -> tuple[tuple[int, ...], ...] | None:
    """A square of counts. Raises `TypeError` for anything else."""
    counts = _rows(rows)
    if counts is not None and any(len(row) != len(counts) for row in counts):
        raise TypeError("'counts' does not have a count for every two ranks")
    return counts


def _rows(rows: list[list[int]] | None) -> tuple[tuple[int, ...], ...] | None:
    """The rows as tuples. Raises `TypeError` for anything else than rows of whole numbers."""
    if rows is None:
        return None
    if not all(isinstance(number, int) for row in rows for number in row):
        raise TypeError("a row of counts or ranks holds something that is no number")
    return tuple(map(tuple, rows))


def _groups(
    groups: dict[str, list[list[int]]] | None,
) -> dict[str, tuple[tuple[int, ...], ...]] | None:
    return None if groups is None else {kind: _rows(rows) or () for kind, rows in groups.items()}
